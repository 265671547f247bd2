"""Sandboxes: what backends start, and the client of the daemon inside."""

from hermes_core.sandbox._artifacts import MAX_ENTRIES, Archive, Entry, EntryKind, Extracted, Listing
from hermes_core.sandbox._client import OutputCallback, SandboxClient, SandboxFacts
from hermes_core.sandbox._jobs import JobInfo, JobOutput
from hermes_core.sandbox._protocol import (
    Capabilities,
    NetworkPolicy,
    Sandbox,
    SandboxBackend,
    SandboxInfo,
    SandboxSpec,
    SandboxState,
)
from hermes_core.sandbox._runtime import Runtime, host_runtime
from hermes_core.sandbox._settings import (
    ISOLATION_LEVELS,
    IsolationLevel,
    IsolationSetting,
    LimitValue,
    SlotSettings,
)
from hermes_core.sandbox._slot_client import (
    MAX_FILE_BYTES,
    MAX_OUTPUT_CAP,
    OUTPUT_CAP,
    CommandOutcome,
    FileContent,
    OpenedSlot,
    SlotClient,
)
from hermes_core.sandbox._unix_stream import UnixStream, connect_unix

__all__ = [
    "ISOLATION_LEVELS",
    "MAX_ENTRIES",
    "MAX_FILE_BYTES",
    "MAX_OUTPUT_CAP",
    "OUTPUT_CAP",
    "Archive",
    "Capabilities",
    "CommandOutcome",
    "Entry",
    "EntryKind",
    "Extracted",
    "FileContent",
    "IsolationLevel",
    "IsolationSetting",
    "JobInfo",
    "JobOutput",
    "LimitValue",
    "Listing",
    "NetworkPolicy",
    "OpenedSlot",
    "OutputCallback",
    "Runtime",
    "Sandbox",
    "SandboxBackend",
    "SandboxClient",
    "SandboxFacts",
    "SandboxInfo",
    "SandboxSpec",
    "SandboxState",
    "SlotClient",
    "SlotSettings",
    "UnixStream",
    "connect_unix",
    "host_runtime",
]

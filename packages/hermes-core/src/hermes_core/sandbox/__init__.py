"""Sandboxes: what backends start, and the client of the daemon inside."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hermes_core.sandbox._artifacts import MAX_ENTRIES, Archive, Entry, EntryKind, Extracted, Listing
from hermes_core.sandbox._client import OutputCallback, SandboxClient, SandboxFacts
from hermes_core.sandbox._daemon_process import REFUSED_STATUS, LastWords, Lifeline, ReadyLine
from hermes_core.sandbox._file_requests import MAX_FILE_BYTES, FileContent
from hermes_core.sandbox._greeting import greet
from hermes_core.sandbox._isolation import (
    ISOLATION_LEVELS,
    IsolationLevel,
    IsolationSetting,
    LimitValue,
    check_isolation,
    require_slots,
)
from hermes_core.sandbox._jobs import JobInfo, JobOutput
from hermes_core.sandbox._missing_folders import MissingFolders, writable_arguments
from hermes_core.sandbox._passing_backend import PassingBackend
from hermes_core.sandbox._process_sandbox import ProcessSandbox
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
from hermes_core.sandbox._slot_client import CommandOutcome, OpenedSlot, SlotClient
from hermes_core.sandbox._slot_requests import MAX_OUTPUT_CAP, OUTPUT_CAP
from hermes_core.sandbox._socket_stream import SocketStream, connect_tcp, connect_unix
from hermes_core.sandbox._started import StartedSandboxes
from hermes_core.sandbox._state_folder import check_private_folder, check_socket_path, default_state_folder

if TYPE_CHECKING:
    from hermes_core.sandbox._settings import SlotSettings as SlotSettings
    from hermes_core.sandbox.portable import fixed_runtime as fixed_runtime
    from hermes_core.sandbox.portable import portable_runtime as portable_runtime

__all__ = [
    "ISOLATION_LEVELS",
    "MAX_ENTRIES",
    "MAX_FILE_BYTES",
    "MAX_OUTPUT_CAP",
    "OUTPUT_CAP",
    "REFUSED_STATUS",
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
    "LastWords",
    "Lifeline",
    "LimitValue",
    "Listing",
    "MissingFolders",
    "NetworkPolicy",
    "OpenedSlot",
    "OutputCallback",
    "PassingBackend",
    "ProcessSandbox",
    "ReadyLine",
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
    "SocketStream",
    "StartedSandboxes",
    "check_isolation",
    "check_private_folder",
    "check_socket_path",
    "connect_tcp",
    "connect_unix",
    "default_state_folder",
    "fixed_runtime",
    "greet",
    "host_runtime",
    "portable_runtime",
    "require_slots",
    "writable_arguments",
]


# Whoever runs commands needs neither settings, whose pydantic takes its time to import, nor a compiler of modules.
_HOMES = {"SlotSettings": "_settings", "fixed_runtime": "portable", "portable_runtime": "portable"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

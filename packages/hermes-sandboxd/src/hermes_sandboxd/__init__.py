"""The daemon that owns the slots inside one sandbox, and the frames that it speaks."""

from __future__ import annotations

from hermes_sandboxd._arguments import daemon_arguments, upkeep_program
from hermes_sandboxd._frames import MAX_BODY, MAX_LINE, FrameDecoder, FrameError, encode_frame
from hermes_sandboxd._programs import MANIFEST, find_bubblewrap
from hermes_sandboxd._protocol import CHUNK_BYTES, INLINE_BYTES, PROTOCOL_VERSION, WINDOW_BYTES, Refusal

__all__ = [
    "CHUNK_BYTES",
    "CLAIMS",
    "INLINE_BYTES",
    "MANIFEST",
    "MAX_BODY",
    "MAX_LINE",
    "PROTOCOL_VERSION",
    "STATE_LOCK",
    "WINDOW_BYTES",
    "FrameDecoder",
    "FrameError",
    "Isolation",
    "NamespaceReport",
    "Refusal",
    "SandboxFacts",
    "build_zipapp",
    "check_archive",
    "check_namespaces",
    "choose_isolation",
    "daemon_arguments",
    "describe_limits",
    "encode_frame",
    "find_bubblewrap",
    "list_sandboxes",
    "pack",
    "remove_abandoned",
    "remove_sandbox",
    "remove_tree",
    "sandbox_title",
    "socket_beside",
    "unpack",
    "upkeep_program",
]

_LAZY = {
    "CLAIMS": "hermes_sandboxd._users",
    "Isolation": "hermes_sandboxd._levels",
    "NamespaceReport": "hermes_sandboxd._check",
    "STATE_LOCK": "hermes_sandboxd._upkeep",
    "SandboxFacts": "hermes_sandboxd._upkeep",
    "build_zipapp": "hermes_sandboxd._zipapp",
    "check_archive": "hermes_sandboxd._tar_check",
    "check_namespaces": "hermes_sandboxd._check",
    "pack": "hermes_sandboxd._packing",
    "choose_isolation": "hermes_sandboxd._levels",
    "describe_limits": "hermes_sandboxd._levels",
    "list_sandboxes": "hermes_sandboxd._upkeep",
    "remove_abandoned": "hermes_sandboxd._state",
    "remove_sandbox": "hermes_sandboxd._upkeep",
    "remove_tree": "hermes_sandboxd._removal",
    "sandbox_title": "hermes_sandboxd._upkeep",
    "socket_beside": "hermes_sandboxd._upkeep",
    "unpack": "hermes_sandboxd._unpacking",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hermes_sandboxd._check import NamespaceReport, check_namespaces
    from hermes_sandboxd._levels import Isolation, choose_isolation, describe_limits
    from hermes_sandboxd._packing import pack
    from hermes_sandboxd._removal import remove_tree
    from hermes_sandboxd._state import remove_abandoned
    from hermes_sandboxd._tar_check import check_archive
    from hermes_sandboxd._unpacking import unpack
    from hermes_sandboxd._upkeep import (
        STATE_LOCK,
        SandboxFacts,
        list_sandboxes,
        remove_sandbox,
        sandbox_title,
        socket_beside,
    )
    from hermes_sandboxd._users import CLAIMS
    from hermes_sandboxd._zipapp import build_zipapp


def __getattr__(name: str) -> object:
    # These import subprocess and more, which the daemon would have to carry into each of its slots.
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What the daemon's refusals mean to callers: the one place where kinds become exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import (
    BackendUnavailableError,
    LeaseStateError,
    ProtocolError,
    SandboxLostError,
    SlotDeadError,
    SlotFileError,
    SlotJobError,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.exceptions import HermesError

__all__ = ["UnknownSlotError", "refusal_error"]

_FILE_KINDS = frozenset(
    (
        "not_found",
        "is_directory",
        "not_a_file",
        "permission_denied",
        "too_large",
        "no_space",
        "bad_archive",
        "interrupted",
    )
)
_JOB_KINDS = frozenset(("unknown_job", "cannot_start", "too_many_jobs", "input_closed", "no_terminal"))


class UnknownSlotError(SandboxLostError):
    """The daemon does not have such a slot open for us."""


def refusal_error(error: Mapping[str, Any]) -> HermesError:
    """Return the exception for the `error` member of an answer (docs/reference/protocol.md lists the kinds)."""
    message = str(error.get("message", "refused without a reason"))
    data = error.get("data") or {}
    kind = str(data.get("kind", "internal"))
    if kind in _JOB_KINDS:
        return SlotJobError(message, kind=kind, exit_code=data.get("exit_code"))
    if kind in _FILE_KINDS:
        return SlotFileError(message, kind=kind)
    match kind:
        case "slot_dead" | "unclean":
            return SlotDeadError(message, limit=data.get("limit"))
        case "isolation_unavailable":
            return BackendUnavailableError(message, hint=data.get("hint"))
        case "bad_request":
            # Arguments come from agents: an infrastructure error here would let an agent buy a retry.
            return UsageError(message)
        case "cancelled":
            return LeaseStateError("the lease ended before the request was started")
        case "unknown_slot":
            return UnknownSlotError(f"the sandbox no longer has this slot: {message}")
        case "shutting_down":
            return SandboxLostError(f"the sandbox is ending: {message}")
        case "session_ended":
            return SandboxLostError("the sandbox was left")
        case _:
            return ProtocolError(f"the sandbox daemon refused ({kind}): {message}")

"""What ssh says when it fails, and what scripts there say, in Hermes's words."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, TypeAlias

from hermes_core.exceptions import BackendUnavailableError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_backend_ssh._address import Address

__all__ = ["SSH_FAILED", "connection_error", "place_error"]

SSH_FAILED = 255
"""The exit status of ssh when it did not get as far as running the command, or lost the connection."""

SshError: TypeAlias = BackendUnavailableError | SandboxLostError

CHANGED = re.compile(r"[Hh]ost key for (\S+) has changed")
OFFENDING = re.compile(r"Offending .*key in (.+):\d+")
UNREACHABLE = (
    "could not resolve hostname",
    "no route to host",
    "network is unreachable",
    "timed out",
    "connection reset",
    "connection closed",
    "broken pipe",
)
NO_SPACE = ("no space left on device", "disk quota exceeded")


def connection_error(said: Sequence[str], address: Address) -> SshError:
    """Return the error for a connection that was not made, or was lost.

    Args:
        said: Lines of ssh's standard error.
        address: Of which machine.

    Returns:
        A `SandboxLostError` if trying again may help, else a `BackendUnavailableError`.
    """
    text = "\n".join(said)
    low = text.lower()
    last = said[-1] if said else "the connection ended"
    if "host key" in low and ("has changed" in low or "HOST IDENTIFICATION HAS CHANGED" in text):
        return BackendUnavailableError(
            f"the host key of {address} is not the one that is known: somebody may be in between",
            hint=f"if its administrator says that it has changed: {_forget(text, address)} && {_learn(address)}",
        )
    if "host key verification failed" in low or "host key is known" in low:
        return BackendUnavailableError(
            f"the host key of {address} is not known",
            hint=f"compare the fingerprint that this shows, and accept it: {_learn(address)}",
        )
    if "unprotected private key" in low:
        return BackendUnavailableError(
            f"the key {address.key} can be read by others, and ssh does not use it", hint=f"chmod 600 {address.key}"
        )
    if "permission denied" in low or "too many authentication failures" in low:
        key = f"the key {address.key}" if address.key else "a key of the agent or of ssh's configuration"
        return BackendUnavailableError(
            f"{address} does not let this user in: {last}",
            hint=f"see that {key} is authorized there (ssh-copy-id), and that the user is right: -B user=NAME",
        )
    if "connection refused" in low:
        return SandboxLostError(
            f"{address} refuses the connection",
            hint="see that its ssh server runs, and that the port is right: -B port=NUMBER",
        )
    if any(reason in low for reason in UNREACHABLE):
        return SandboxLostError(
            f"{address} cannot be reached: {last}",
            hint=f"see that the name is right and that `ssh {_named(address)}` works",
        )
    return SandboxLostError(f"the connection to {address} failed: {last}", hint=f"try `ssh {_named(address)}`")


def place_error(said: Sequence[str], address: Address, what: str) -> SshError:
    """Return the error for a command there that failed.

    Args:
        said: Lines of its standard error.
        address: On which machine.
        what: What could not be done, as the beginning of a sentence.
    """
    last = said[-1] if said else "it gave no reason"
    if any(reason in line.lower() for line in said for reason in NO_SPACE):
        return BackendUnavailableError(
            f"{what}: no space is left on {address}",
            hint="make room there, or name another place: -B remote_dir=FOLDER",
        )
    return BackendUnavailableError(f"{what} on {address}: {last}", hint="-B remote_dir=FOLDER names another place")


def _named(address: Address) -> str:
    return shlex.join([*address.place, address.host])


def _learn(address: Address) -> str:
    return f"ssh -o StrictHostKeyChecking=ask {_named(address)} true"


def _forget(text: str, address: Address) -> str:
    name = CHANGED.search(text)
    file = OFFENDING.search(text)
    arguments = ["ssh-keygen", "-R", name[1] if name else address.host]
    return shlex.join([*arguments, *(("-f", file[1]) if file else ())])

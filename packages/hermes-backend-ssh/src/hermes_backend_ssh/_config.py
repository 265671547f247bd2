"""Settings of the backend `ssh`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from hermes_core.sandbox import SlotSettings

__all__ = ["SshConfig"]

Word = Annotated[str, StringConstraints(pattern=r"^[^-\s]\S*$")]
Folder = Annotated[str, StringConstraints(pattern=r"^(/|~/)[^\x00-\x1f]+$")]


class SshConfig(SlotSettings):
    """Slots on a machine that is reached by ssh.

    What is not set is read from the variables TERMINAL_SSH_HOST, TERMINAL_SSH_USER, TERMINAL_SSH_PORT and
    TERMINAL_SSH_KEY, else from ssh's own configuration.
    """

    host: Word | None = None
    """The machine: a name, an address, or a `Host` of ssh's configuration."""

    user: Word | None = None
    """The user there. Slots are least restricted as to limits, and not less isolated, if that is root."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The port of its ssh server; 22 unless ssh's configuration says otherwise."""

    key: Path | None = None
    """The private key to log in with. By default those of the agent, and of ssh's configuration."""

    known_hosts: Path | None = None
    """File with the host keys that are trusted; ssh's own by default. There is no way around it."""

    remote_dir: Folder | None = None
    """Folder there for all that Hermes puts on that machine (absolute, or `~/…`): an interpreter, sockets, workspaces.
    As root every user must be able to pass it. By default /var/cache/hermes-ssh for root, else hermes-ssh below
    $XDG_CACHE_HOME or ~/.cache."""

    connect_timeout_s: Annotated[float, Field(gt=0, le=600)] = 15.0
    """Seconds within which the machine is to be reached and logged in to."""

    slots_per_sandbox: Annotated[int, Field(ge=1, le=1024)] = 32
    """Slots that one daemon there hosts."""

    max_sandboxes: Annotated[int, Field(ge=1, le=1024)] = 4
    """Most daemons at once. Each takes two sessions of one ssh connection, of which a server grants ten by default; for
    those beyond, connections of their own are made."""

"""Which machine, and the commands that reach it."""

from __future__ import annotations

import math
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hermes_core.config import first_variable
from hermes_core.exceptions import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from hermes_backend_ssh._config import SshConfig

__all__ = ["Address"]

ALIVE_S, ALIVE_MISSES = 15, 3
"""A connection counts as gone when the server was silent for so long, so many times."""

OPTIONS = (
    *("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "LogLevel=ERROR", "RequestTTY=no"),
    *("RemoteCommand=none", "PermitLocalCommand=no", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes"),
    *("ControlPersist=no", f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_MISSES}"),
)


@dataclass(frozen=True, slots=True)
class Address:
    """A machine, and how to log in to it.

    Attributes:
        program: The OpenSSH client.
        host: The machine.
        user: The user there; None for what ssh takes.
        port: Its port; None for what ssh takes.
        key: The private key; None for what ssh takes.
        known_hosts: File of trusted host keys; None for what ssh takes.
        connect_timeout_s: Seconds for reaching it.
    """

    program: str
    host: str
    user: str | None
    port: int | None
    key: Path | None
    known_hosts: Path | None
    connect_timeout_s: float

    @classmethod
    def of(cls, config: SshConfig) -> Self:
        """Complete a configuration by variables.

        Raises:
            ConfigError: There is no host, or no such key.
            BackendUnavailableError: There is no ssh client here.
        """
        host = config.host or first_variable(["TERMINAL_SSH_HOST"])
        if host is None:
            raise ConfigError("the backend 'ssh' needs a machine", hint="-B host=NAME, or TERMINAL_SSH_HOST=NAME")
        if host.startswith("-"):
            raise ConfigError(f"TERMINAL_SSH_HOST: {host!r} is no name of a machine")
        key = _path(config.key or first_variable(["TERMINAL_SSH_KEY"]))
        if key is not None and not key.is_file():
            raise ConfigError(f"there is no key {key}", hint="-B key=FILE names a private key")
        program = shutil.which("ssh")
        if program is None:
            raise BackendUnavailableError(
                "there is no ssh client on PATH", hint="install OpenSSH: apt-get install openssh-client"
            )
        return cls(
            program=program,
            host=host,
            user=config.user or first_variable(["TERMINAL_SSH_USER"]),
            port=config.port or _port(first_variable(["TERMINAL_SSH_PORT"])),
            key=key,
            known_hosts=_path(config.known_hosts),
            connect_timeout_s=config.connect_timeout_s,
        )

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}{f':{self.port}' if self.port else ''}"

    @property
    def place(self) -> tuple[str, ...]:
        """The arguments that name the machine, without a command."""
        arguments: list[str] = []
        if self.port is not None:
            arguments += ["-p", str(self.port)]
        if self.user is not None:
            arguments += ["-l", self.user]
        if self.key is not None:
            arguments += ["-o", "IdentitiesOnly=yes", "-o", f"IdentityFile={_quoted(self.key)}"]
        if self.known_hosts is not None:
            arguments += ["-o", f"UserKnownHostsFile={_quoted(self.known_hosts)}"]
        return tuple(arguments)

    def command(self, script: str, *, control: Path, master: bool = False) -> list[str]:
        """Return the command that runs a script there.

        Args:
            script: For `sh`, in one line, so that whatever shell the user has there passes it on.
            control: Socket of the shared connection.
            master: Whether to make that connection, instead of using it if it is there.
        """
        options = [
            *OPTIONS,
            f"ConnectTimeout={math.ceil(self.connect_timeout_s)}",
            f"ControlMaster={'yes' if master else 'no'}",
            f"ControlPath={_quoted(control)}",
        ]
        arguments = [argument for option in options for argument in ("-o", option)]
        return [self.program, *arguments, *self.place, "--", self.host, f"exec sh -c {shlex.quote(script)}"]


def _path(given: Path | str | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"TERMINAL_SSH_PORT: {text!r} is no port")
    return int(text)


def _quoted(path: Path) -> str:
    """A path as ssh's configuration wants it: its own expansions are for others."""
    return '"' + str(path).replace("%", "%%") + '"'

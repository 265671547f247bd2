"""The connection to a machine, which everything shares."""

from __future__ import annotations

import os
import stat
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import IO, TYPE_CHECKING

import anyio

from hermes_backend_ssh._errors import connection_error
from hermes_backend_ssh._processes import end_process, lines_of, run_there, start_process
from hermes_backend_ssh._scripts import GREETING, keep
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import Process

    from hermes_backend_ssh._address import Address
    from hermes_backend_ssh._processes import Done

__all__ = ["Connection", "Machine", "control_path"]

LONGEST_LINE = 1 << 16
CLOSE_S = 2.0
GRACE_S = 1.0
"""What ssh has beyond its own time limit to say what it ran into."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is like.

    Attributes:
        system: As `uname -s` says.
        architecture: As `uname -m` says.
        uid: The user's id there.
        tar: Whether it has tar.
        root: The folder there for everything.
    """

    system: str
    architecture: str
    uid: int
    tar: bool
    root: str


class Connection:
    """An ssh process that keeps a connection, and lets others have sessions of it.

    It ends when its standard input does, which the kernel sees to even if this process is killed, and all its sessions
    have ended, whose standard inputs this process holds as well.

    Args:
        address: Of the machine.
        remote_dir: As in the configuration.
    """

    def __init__(self, address: Address, remote_dir: str | None) -> None:
        self.address = address
        self._remote_dir = remote_dir
        self.control = control_path()
        self._process: Process | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a connection."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """The process that keeps the connection."""
        return self._process.pid if self._process is not None else None

    async def connect(self) -> Machine:
        """Connect and log in; cancelling leaves nothing behind.

        Raises:
            BackendUnavailableError: It cannot be had until somebody changes something.
            SandboxLostError: It cannot be had now.
        """
        command = self.address.command(keep(self._remote_dir), control=self.control, master=True)
        with tempfile.TemporaryFile() as errors:
            self._process = await start_process(command, stdin=PIPE, stdout=PIPE, stderr=errors)
            try:
                with anyio.fail_after(self.address.connect_timeout_s + GRACE_S):
                    lines = await self._read_lines(3)
                    if len(lines) < 3:
                        await self._process.wait()
            except TimeoutError:
                await self.aclose()
                raise SandboxLostError(
                    f"{self.address} cannot be reached within {self.address.connect_timeout_s:g} s",
                    hint="see that the name is right; -B connect_timeout_s=SECONDS gives it more time",
                ) from None
            except BaseException:
                await self.aclose()
                raise
            if len(lines) == 3 and lines[0].startswith(GREETING):
                return _machine(lines)
            await self.aclose()
            errors.seek(0)
            said = lines_of(errors.read())
        if not lines or lines[0].startswith(GREETING):
            raise connection_error(said, self.address)
        raise BackendUnavailableError(
            f"the shell of {self.address} prints to commands that nobody watches: {lines[0][:80]!r}",
            hint="let its configuration (.bashrc, .profile) print nothing unless the shell is interactive",
        )

    async def _read_lines(self, count: int) -> list[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        data = b""
        try:
            while data.count(b"\n") < count and len(data) < LONGEST_LINE:
                data += await self._process.stdout.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
        return lines_of(data)[:count]

    async def open(self, script: str, *, stdin: int, stdout: int, stderr: int) -> Process:
        """Start a script there, in a session of this connection; the caller owns the process."""
        return await start_process(
            self.address.command(script, control=self.control), stdin=stdin, stdout=stdout, stderr=stderr
        )

    async def run(self, script: str, stdin: bytes | IO[bytes] = b"") -> Done:
        """Run a script there to its end.

        Raises:
            BackendUnavailableError, SandboxLostError: There is no connection.
        """
        return await run_there(self.address, script, stdin, control=self.control)

    async def aclose(self) -> None:
        """Close the connection; idempotent."""
        with anyio.CancelScope(shield=True):
            if self._process is not None:
                process, self._process = self._process, None
                if process.stdin is not None:
                    await process.stdin.aclose()
                with anyio.move_on_after(CLOSE_S):
                    await process.wait()
                if process.returncode is None:
                    process.terminate()  # it tidies up
                    with anyio.move_on_after(CLOSE_S):
                        await process.wait()
                await end_process(process)
            self.control.unlink(missing_ok=True)


def control_path() -> Path:
    """Return a path for the socket of a connection, in a folder of this user's alone, short enough for ssh.

    Raises:
        BackendUnavailableError: There is a folder of that name that is somebody else's.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path("/tmp", f"hermes-ssh-{os.geteuid()}")
    if len(runtime) in range(1, 40) and os.access(runtime, os.W_OK):
        folder = Path(runtime, "hermes-ssh")
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
        raise BackendUnavailableError(f"{folder} is not a folder of this user's alone", hint=f"remove {folder}")
    return folder / uuid.uuid4().hex[:12]


def _machine(lines: Sequence[str]) -> Machine:
    _, system, architecture, uid = lines[0].split()
    return Machine(system, architecture, int(uid), lines[1] == "tar", lines[2])

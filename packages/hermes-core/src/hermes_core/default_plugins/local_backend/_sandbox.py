"""One daemon on this machine."""

from __future__ import annotations

import shutil
from functools import partial
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from hermes_core.default_plugins.local_backend._state import socket_of
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError
from hermes_core.sandbox import REFUSED_STATUS, LastWords, Lifeline, ReadyLine, connect_unix, require_slots
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import ByteStream, Process

    from hermes_core.sandbox import IsolationSetting

__all__ = ["LocalSandbox"]

STOP_S = 5.0
REMOVE_PAUSES_S = [0.01] * 50 + [0.1] * 25
DAEMON_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""All that a daemon gets of this process's environment: nothing."""


class LocalSandbox:
    """A `hermes-sandboxd serve` process, and the pipe that it lives by.

    The daemon ends when the last writing end of its lifeline is closed, which the kernel does even if this process is
    killed. It is in a session of its own, so that Ctrl-C in the terminal does not take it away before its slots are
    cleaned up.

    Args:
        name: Unique among the owner's sandboxes.
        capacity: How many slots it hosts.
        folder: Its state folder, which it makes and removes.
    """

    def __init__(self, name: str, capacity: int, folder: Path) -> None:
        self._name = name
        self._capacity = capacity
        self._folder = folder
        self._socket = socket_of(folder)
        self._process: Process | None = None
        self._lifeline = Lifeline()
        self._said = LastWords(name)
        self._stopping = anyio.Lock()
        self._stopped = False

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""
        return self._name

    @property
    def capacity(self) -> int:
        """How many slots it hosts."""
        return self._capacity

    @property
    def token(self) -> None:
        """None: the folder of the socket is closed to others."""
        return

    @property
    def pid(self) -> int | None:
        """The daemon's process id."""
        return self._process.pid if self._process is not None else None

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""
        return self._stopped

    async def spawn(self, bubblewrap: str | None, isolation: IsolationSetting) -> None:
        """Start the daemon's process."""
        with self._lifeline.open() as reading:
            arguments = daemon_arguments(
                socket=str(self._socket),
                state=str(self._folder),
                capacity=self._capacity,
                lifeline_fd=reading,
                bwrap=bubblewrap,
                isolation=isolation,
            )
            self._process = await anyio.open_process(
                arguments,
                stdin=DEVNULL,
                env=DAEMON_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
                pass_fds=(reading,),
            )

    async def drain(self) -> None:
        """Keep the last lines of the daemon's standard error until it ends."""
        assert self._process is not None
        assert self._process.stderr is not None
        await self._said.read(self._process.stderr)

    async def wait_ready(self) -> None:
        """Wait until the daemon takes connections.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: It can open no slot here.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        ready = await ReadyLine.receive(self._process.stdout)
        if ready is None:
            with anyio.move_on_after(1):
                await self._process.wait()
                await self._said.wait_complete()
            if self._process.returncode == REFUSED_STATUS:
                said = self._said.lines[-1] if self._said.lines else "hermes-sandboxd refused to start"
                raise BackendUnavailableError(said.removeprefix("hermes-sandboxd: "))
            raise SandboxLostError(self._why_dead())
        require_slots(ready.obstacle, "here")

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        return connect_unix(self._socket)

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        if self._process is None or self._process.returncode is not None:
            return self._why_dead()
        return None

    def cut(self) -> None:
        """Let go of the lifeline: the daemon ends its slots and itself."""
        self._lifeline.cut()

    async def stop(self) -> None:
        """End the daemon and all its slots, by force if it takes too long; idempotent."""
        self.cut()
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._process is not None:
                    await self._reap(self._process)
                    self._process = None
                # The daemon removes its folder, and if it was killed, what it forked does.
                for pause in REMOVE_PAUSES_S:
                    if not self._folder.exists():
                        break
                    await anyio.sleep(pause)
                if self._folder.exists():
                    await to_thread.run_sync(partial(shutil.rmtree, self._folder, ignore_errors=True))
                self._socket.unlink(missing_ok=True)
                self._stopped = True

    async def _reap(self, process: Process) -> None:
        with anyio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        with anyio.move_on_after(1):
            await self._said.wait_complete()
        await process.aclose()

    def _why_dead(self) -> str:
        if self._process is None:
            return f"sandbox {self._name} was stopped"
        status = self._process.returncode
        how = f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return f"the daemon of sandbox {self._name} {how}{self._said.after_colon}"

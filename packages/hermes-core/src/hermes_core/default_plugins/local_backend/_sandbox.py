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
from hermes_core.sandbox import REFUSED_STATUS, ProcessSandbox, connect_unix, require_slots
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


class LocalSandbox(ProcessSandbox):
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
        super().__init__(name, capacity)
        self._folder = folder
        self._socket = socket_of(folder)

    @property
    def pid(self) -> int | None:
        """The daemon's process id."""
        return self._process.pid if self._process is not None else None

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

    async def wait_ready(self) -> None:
        """Wait until the daemon takes connections.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: It can open no slot here.
        """
        require_slots((await self._ready()).obstacle, "here")

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        return connect_unix(self._socket)

    async def _end(self, process: Process) -> None:
        with anyio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()

    async def _remove(self) -> None:
        # The daemon removes its folder, and if it was killed, what it forked does.
        for pause in REMOVE_PAUSES_S:
            if not self._folder.exists():
                break
            await anyio.sleep(pause)
        if self._folder.exists():
            await to_thread.run_sync(partial(shutil.rmtree, self._folder, ignore_errors=True))
        self._socket.unlink(missing_ok=True)

    def _why_not_started(self) -> BackendUnavailableError | SandboxLostError:
        if self._process is not None and self._process.returncode == REFUSED_STATUS:
            return self._said.refusal or BackendUnavailableError(f"hermes-sandboxd refuses{self._said.after_colon}")
        return SandboxLostError(self._why_dead())

    def _why_dead(self) -> str:
        if self._process is None:
            return f"sandbox {self._name} was stopped"
        status = self._process.returncode
        how = f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"
        return f"the daemon of sandbox {self._name} {how}{self._said.after_colon}"

"""One container on this machine, with a daemon in it."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from hermes_backend_singularity._engine import container_environment, explain
from hermes_backend_singularity._state import kill_marked
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError
from hermes_core.sandbox import REFUSED_STATUS, ProcessSandbox, connect_unix, require_slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import ByteStream, Process

    from hermes_backend_singularity._state import RunFolder
    from hermes_core.sandbox import ReadyLine

__all__ = ["SingularitySandbox"]

STOP_S = 5.0
FORCE_S = 3.0
ENGINE_FAILED = 255
"""The engine's exit status when it did not start the daemon."""
KILLED = "connection is shut down"
"""What the engine says when the process that was to become the container's first was killed."""

_logger = logging.getLogger(__name__)


class SingularitySandbox(ProcessSandbox):
    """An `apptainer exec` process with a daemon in it, and the pipe that the daemon lives by.

    The daemon ends when the writing end of its lifeline is closed, which the kernel does even if this process is
    killed. All of it is in a session of its own, so that Ctrl-C in the terminal does not take it away before its slots
    are cleaned up.

    Args:
        name: Unique among the owner's sandboxes.
        capacity: How many slots it hosts.
        folder: Its folder, which is removed in the end.
        in_thread: Runs a blocking function in a thread.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        folder: RunFolder,
        in_thread: Callable[[Callable[[], object]], Awaitable[object]],
    ) -> None:
        super().__init__(name, capacity)
        self._folder = folder
        self._in_thread = in_thread

    @property
    def pid(self) -> int | None:
        """The process that keeps the engine; everything of the container is below it."""
        return self._process.pid if self._process is not None else None

    async def spawn(self, command: Sequence[str]) -> None:
        """Start the container."""
        # Shielded: it takes no time, and half a start could not be ended.
        with self._lifeline.open() as reading, anyio.CancelScope(shield=True):
            self._process = await anyio.open_process(
                command, stdin=reading, env=container_environment(), cwd="/", start_new_session=True
            )

    async def wait_ready(self) -> ReadyLine:
        """Wait until the daemon takes connections; return what it says of itself.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: The engine does not start it, it cannot work with the settings, or it can open no
                slot here.
        """
        ready = await self._ready()
        require_slots(ready.obstacle, "in this container")
        return ready

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        # By a descriptor of its folder: the path of a socket may be no longer than 107 bytes, and scratch folders are.
        descriptor = os.open(self._folder.shared, os.O_PATH | os.O_CLOEXEC)
        try:
            return connect_unix(f"/proc/self/fd/{descriptor}/{self._folder.socket.name}")
        finally:
            os.close(descriptor)

    async def _end(self, process: Process) -> None:
        with anyio.move_on_after(STOP_S):
            await process.wait()
        if process.returncode is None:
            _logger.warning("sandbox %s does not end by itself, and is killed", self._name)
            # From the inside out, so that the engine is there to take its mounts down.
            spare = (process.pid, *_children(process.pid))
            await self._in_thread(partial(kill_marked, self._folder.mark, spare))
            with anyio.move_on_after(FORCE_S):
                await process.wait()
        if process.returncode is None or process.returncode < 0:  # a keeper that was killed ended nothing
            await self._in_thread(partial(kill_marked, self._folder.mark))
            await process.wait()

    async def _remove(self) -> None:
        await self._in_thread(self._folder.remove)

    def _why_not_started(self) -> BackendUnavailableError | SandboxLostError:
        status = self._process.returncode if self._process is not None else None
        if status == REFUSED_STATUS and (refusal := self._said.refusal) is not None:
            return refusal
        killed = any(KILLED in line for line in self._said.lines)
        if not killed and ((status is not None and 0 < status < 128) or status == ENGINE_FAILED):
            message, hint = explain(self._said.lines)
            return BackendUnavailableError(f"the container cannot be started: {message}", hint=hint)
        return SandboxLostError(self._why_dead())

    def _why_dead(self) -> str:
        if self._process is None:
            return f"sandbox {self._name} was stopped"
        status = self._process.returncode
        # The shell that keeps the engine tells of a signal as shells do.
        signal = -status if status is not None and status < 0 else (status or 0) - 128
        how = f"was killed by signal {signal}" if 0 < signal < 65 else f"ended with status {status}"
        return f"the container of sandbox {self._name} {how}{self._said.after_colon}"


def _children(pid: int) -> tuple[int, ...]:
    try:
        return tuple(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()))
    except OSError:
        return ()

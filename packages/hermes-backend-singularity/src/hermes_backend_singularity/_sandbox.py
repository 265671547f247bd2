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
from hermes_core.sandbox import REFUSED_STATUS, LastWords, Lifeline, ReadyLine, connect_unix, require_slots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import ByteStream, Process

    from hermes_backend_singularity._state import RunFolder

__all__ = ["SingularitySandbox"]

STOP_S = 5.0
FORCE_S = 3.0
ENGINE_FAILED = 255
"""The engine's exit status when it did not start the daemon."""

_logger = logging.getLogger(__name__)


class SingularitySandbox:
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
        self._name = name
        self._capacity = capacity
        self._folder = folder
        self._in_thread = in_thread
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
        """The process that keeps the engine; everything of the container is below it."""
        return self._process.pid if self._process is not None else None

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""
        return self._stopped

    async def spawn(self, command: Sequence[str]) -> None:
        """Start the container."""
        # Shielded: it takes no time, and half a start could not be ended.
        with self._lifeline.open() as reading, anyio.CancelScope(shield=True):
            self._process = await anyio.open_process(
                command, stdin=reading, env=container_environment(), cwd="/", start_new_session=True
            )

    async def drain(self) -> None:
        """Keep the last lines of standard error, the engine's and the daemon's, until both have ended."""
        assert self._process is not None
        assert self._process.stderr is not None
        await self._said.read(self._process.stderr)

    async def wait_ready(self) -> None:
        """Wait until the daemon takes connections.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: The engine does not start it, or it can open no slot here.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        ready = await ReadyLine.receive(self._process.stdout)
        if ready is None:
            with anyio.move_on_after(1):
                await self._process.wait()
                await self._said.wait_complete()
            raise self._why_not_started()
        require_slots(ready.obstacle, "in this container")

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        # By a descriptor of its folder: the path of a socket may be no longer than 107 bytes, and scratch folders are.
        descriptor = os.open(self._folder.shared, os.O_PATH | os.O_CLOEXEC)
        try:
            return connect_unix(f"/proc/self/fd/{descriptor}/{self._folder.socket.name}")
        finally:
            os.close(descriptor)

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        if self._process is None or self._process.returncode is not None:
            return self._why_dead()
        return None

    def cut(self) -> None:
        """Let go of the lifeline: the daemon ends its slots and itself."""
        self._lifeline.cut()

    async def stop(self) -> None:
        """End the container and all that is in it, by force if it takes too long; idempotent."""
        self.cut()
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._process is not None:
                    await self._reap(self._process)
                    self._process = None
                if not self._stopped:
                    await self._in_thread(self._folder.remove)
                self._stopped = True

    async def _reap(self, process: Process) -> None:
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
        with anyio.move_on_after(1):
            await self._said.wait_complete()
        await process.aclose()

    def _why_not_started(self) -> BackendUnavailableError | SandboxLostError:
        status = self._process.returncode if self._process is not None else None
        if status == REFUSED_STATUS:
            message, hint = explain(self._said.lines)
            return BackendUnavailableError(message.removeprefix("hermes-sandboxd: "), hint=hint)
        if (status is not None and 0 < status < 128) or status == ENGINE_FAILED:
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

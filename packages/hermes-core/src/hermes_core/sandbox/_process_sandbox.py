"""A sandbox whose daemon is a process of ours, or at the other end of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import anyio

from hermes_core.sandbox._daemon_process import LastWords, Lifeline, ReadyLine

if TYPE_CHECKING:
    from anyio.abc import ByteStream, Process

    from hermes_core.exceptions import HermesError

__all__ = ["ProcessSandbox"]

LAST_WORDS_S = 1.0


class ProcessSandbox(ABC):
    """A process, the lifeline that the daemon behind it lives by, and what it says on its way up and down.

    A subclass starts `_process` with the reading end of `_lifeline`, and has `_said` read its standard error.

    Args:
        name: Unique among the owner's sandboxes.
        capacity: How many slots it hosts.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
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
    def token(self) -> str | None:
        """None: the folder of the socket is closed to others."""
        return None

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""
        return self._stopped

    @abstractmethod
    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""

    async def drain(self) -> None:
        """Keep the last lines of standard error until all have ended that write there."""
        assert self._process is not None
        assert self._process.stderr is not None
        await self._said.read(self._process.stderr)

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        if self._process is None or self._process.returncode is not None:
            return self._why_dead()
        return None

    async def stop(self) -> None:
        """End the daemon and all its slots, by force if it takes too long; idempotent."""
        self._lifeline.cut()  # it ends its slots and itself
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._process is not None:
                    await self._end(self._process)
                    with anyio.move_on_after(LAST_WORDS_S):
                        await self._said.wait_complete()
                    await self._process.aclose()
                    self._process = None
                elif self._stopped:
                    return
                await self._remove()
                self._stopped = True

    async def _ready(self) -> ReadyLine:
        """Wait until the daemon takes connections, and return what it says of itself."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready = await ReadyLine.receive(self._process.stdout)
        if ready is None:
            with anyio.move_on_after(LAST_WORDS_S):
                await self._process.wait()
                await self._said.wait_complete()
            raise self._why_not_started()
        return ready

    @abstractmethod
    async def _end(self, process: Process) -> None:
        """See the process end, whose lifeline was cut; kill it, and what is behind it, if it takes too long."""

    async def _remove(self) -> None:  # noqa: B027 - not every one leaves something
        """Remove what is left when the process has ended."""

    @abstractmethod
    def _why_not_started(self) -> HermesError:
        """Return the error of a daemon that ended instead of getting ready."""

    @abstractmethod
    def _why_dead(self) -> str:
        """Say in a line why it does not live."""

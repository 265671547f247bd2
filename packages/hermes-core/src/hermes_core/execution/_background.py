"""A background process of a leased slot."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.sandbox import MAX_OUTPUT_CAP

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from hermes_core.sandbox import JobOutput, SlotClient

__all__ = ["BackgroundProcess", "ProcessOutput"]

WAIT_S = 0.2
"""How long a poll waits in the slot at a time: everything else in the slot waits meanwhile."""

_BEYOND_ALL = 1 << 60


@dataclass(frozen=True, slots=True)
class ProcessOutput:
    """What a background process wrote since it was last asked, and how it is.

    Attributes:
        text: Standard output and standard error together, UTF-8 with replacement.
        running: Whether it runs.
        exit_code: 0..255; None while it runs, and when it did not exit by itself.
        signal: The number of the signal that ended it, or None.
        limit: The limit whose breach ended it, or None.
        lost_bytes: Bytes before `text` that were written since it was last asked, and are not kept any more.
    """

    text: str
    running: bool
    exit_code: int | None
    signal: int | None
    limit: str | None
    lost_bytes: int


class BackgroundProcess:
    """A process of a slot that runs on while the slot does other things, until it ends, is killed, or the lease ends.

    Its requests take their turn among those of the slot. One that was started inside a tool call is of no use once
    that has ended; `Slot.process` finds it again by its number.

    Args:
        number: Its number within the lease.
        turn: Gives requests their turn.
    """

    def __init__(self, number: int, turn: Callable[[], AbstractAsyncContextManager[SlotClient]]) -> None:
        self.number = number
        self._turn = turn
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def poll(self, *, wait_s: float = 0.0) -> ProcessOutput:
        """Return what it wrote since the last poll, and how it is.

        When it no longer runs, all that it wrote itself is there. Children that it left behind may write more.

        Args:
            wait_s: Wait up to so many seconds for output or its end.

        Raises:
            SlotJobError: It has ended, and so many were started since that it is forgotten.
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
        """
        found = await self._await_news(self._position, MAX_OUTPUT_CAP, wait_s)
        return self._take(found)

    async def wait(self) -> ProcessOutput:
        """Wait for its end; return what it wrote since the last poll, and how it ended.

        Raises:
            SlotJobError: As `poll`.
        """
        while (await self._await_news(_BEYOND_ALL, 0, WAIT_S)).running:
            pass
        return await self.poll()

    async def read(self, offset: int = 0) -> JobOutput:
        """Return its output from a byte on, as far as it is still kept; what `poll` returns next stays the same.

        Args:
            offset: First byte, counted from the start of the whole output.

        Raises:
            SlotJobError: As `poll`.
        """
        async with self._turn() as client:
            return await client.poll(self.number, offset=offset, max_bytes=MAX_OUTPUT_CAP)

    async def write(self, data: bytes | str = b"", *, end: bool = False) -> None:
        """Send data to its standard input.

        As long as more than 1 MiB is to be read by it still, this waits, and everything else in the slot too.

        Args:
            data: What to send; text as UTF-8.
            end: Close its standard input afterwards.

        Raises:
            SlotJobError: It has ended, or its standard input is closed.
        """
        async with self._turn() as client:
            await client.input(self.number, data.encode() if isinstance(data, str) else data, end=end)

    async def kill(self, signal: int = 9) -> None:
        """Signal it; nothing happens if it has ended.

        Args:
            signal: 9 kills it with its session and all its descendants, also when it has ended itself; any other signal
                goes to its process group.

        Raises:
            SlotJobError: As `poll`.
        """
        async with self._turn() as client:
            await client.kill(self.number, signal)

    async def _await_news(self, offset: int, max_bytes: int, wait_s: float) -> JobOutput:
        deadline = anyio.current_time() + wait_s
        while True:
            left = max(0.0, min(WAIT_S, deadline - anyio.current_time()))
            async with self._turn() as client:
                found = await client.poll(self.number, offset=offset, max_bytes=max_bytes, wait_s=left)
            if found.end > offset or not found.running or anyio.current_time() >= deadline:
                return found

    def _take(self, found: JobOutput) -> ProcessOutput:
        lost = found.offset - self._position
        text = ""
        if lost:
            # A character that was cut off by the loss is not continued by what comes after it.
            text = self._decoder.decode(b"", final=True)
            self._decoder.reset()
        self._position = found.offset + len(found.data)
        text += self._decoder.decode(found.data, final=not found.running)
        return ProcessOutput(text, found.running, found.exit_code, found.signal, found.limit, lost)

"""What a backend has to do with the process of a daemon: its lifeline, its ready line, its last words."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio
from anyio.streams.text import TextReceiveStream

from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteReceiveStream

__all__ = ["REFUSED_STATUS", "LastWords", "Lifeline", "ReadyLine"]

REFUSED_STATUS = 2
"""The daemon's exit status when it cannot work with what it was given: trying again is of no use."""
LINES = 20
LONGEST_LINE = 500
LONGEST_READY_LINE = 1 << 16
OWN = "hermes-sandboxd: "
"""Begins what a daemon says itself."""

_logger = logging.getLogger(__name__)


class LastWords:
    """The last lines of a daemon's standard error.

    Args:
        name: Of the sandbox, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: deque[str] = deque(maxlen=LINES)
        self._rest = ""
        self._complete = anyio.Event()

    @property
    def lines(self) -> tuple[str, ...]:
        """Them, oldest first, without empty ones."""
        return tuple(self._lines)

    @property
    def after_colon(self) -> str:
        """The last one, to be put behind a sentence; empty if there is none."""
        return f": {self._lines[-1]}" if self._lines else ""

    @property
    def refusal(self) -> BackendUnavailableError | None:
        """Why the daemon cannot work with what it was given, if that is what it said last."""
        if not self._lines or not self._lines[-1].startswith(OWN):
            return None
        reason, _, hint = self._lines[-1].removeprefix(OWN).partition("; ")
        return BackendUnavailableError(reason, hint=hint or None)

    def feed(self, text: str) -> None:
        """Take what was written, in pieces of any size."""
        *lines, self._rest = (self._rest + text)[-LONGEST_LINE * LINES :].split("\n")
        for line in filter(None, map(str.strip, lines)):
            _logger.debug("sandbox %s: %s", self._name, line)
            self._lines.append(line[:LONGEST_LINE])

    def finish(self) -> None:
        """Nothing more will be written."""
        self.feed("\n" if self._rest else "")
        self._complete.set()

    async def read(self, stderr: ByteReceiveStream) -> None:
        """Read to the end, which is when all have ended that have the stream."""
        try:
            async for text in TextReceiveStream(stderr, errors="replace"):
                self.feed(text)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        finally:
            self.finish()

    async def wait_complete(self) -> None:
        """Wait until nothing more will be written."""
        await self._complete.wait()


@dataclass(frozen=True, slots=True)
class ReadyLine:
    """The one line that a daemon writes to standard output once it takes connections.

    Attributes:
        pid: Of the daemon, where it runs.
        isolation: The level of its slots.
        obstacle: Why it can open none, or None.
        missing: Folders that slots were to have copies of if the image has them, and that it does not have.
    """

    pid: int
    isolation: str
    obstacle: str | None
    missing: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Read it."""
        said = json.loads(line)
        return cls(said["pid"], said["isolation"], said["obstacle"], tuple(said["missing"]))

    @classmethod
    async def receive(cls, stdout: ByteReceiveStream) -> Self | None:
        """Wait for it; None if the daemon ends instead."""
        line = b""
        try:
            while not line.endswith(b"\n") and len(line) < LONGEST_READY_LINE:
                line += await stdout.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return None
        return cls.parse(line)


class Lifeline:
    """The pipe that a daemon lives by: it ends when the last writing end is closed.

    The kernel closes that even if this process is killed.
    """

    def __init__(self) -> None:
        self._writing = -1

    @contextmanager
    def open(self) -> Iterator[int]:
        """Make it; what it yields is the end to start the daemon with, and closed here afterwards."""
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        try:
            yield reading
        finally:
            os.close(reading)

    def beat(self) -> None:
        """Let a daemon that watches for silence know that somebody is here."""
        if self._writing >= 0:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._writing, b"\n")

    def cut(self) -> None:
        """Let go of it; idempotent."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

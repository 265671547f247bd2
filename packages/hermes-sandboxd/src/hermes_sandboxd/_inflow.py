"""The body of a request on its way to a descriptor that takes it at its own pace: standard input, a worker."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Callable

from hermes_sandboxd._reactor import WRITE

if TYPE_CHECKING:
    from hermes_sandboxd._reactor import Reactor


class Inflow:
    """Holds what came, and writes it when the descriptor takes it.

    Args:
        reactor: Tells when.
        body: What came with the request.
        ended: Whether that is all.
        consumed: Called with how many bytes were written.
        dropped: Called with how many bytes nobody will read.
    """

    def __init__(
        self,
        reactor: Reactor,
        body: bytes,
        ended: bool,
        consumed: Callable[[int], None],
        dropped: Callable[[int], None] | None = None,
    ) -> None:
        self._reactor = reactor
        self._consumed = consumed
        self._dropped = dropped
        self._chunks: deque[memoryview] = deque()
        if body:
            self._chunks.append(memoryview(body))
        self._ended = ended
        self._descriptor = -1

    @property
    def empty(self) -> bool:
        """Whether nothing came, and nothing will."""
        return not self._chunks and self._ended

    @property
    def open(self) -> bool:
        """Whether there is a descriptor that takes it."""
        return self._descriptor >= 0

    def write_to(self, descriptor: int) -> None:
        """Take a descriptor to write to; it is closed from here."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor

    def add(self, body: bytes, end: bool) -> None:
        """Take a further piece."""
        if body:
            self._chunks.append(memoryview(body))
        self._ended = self._ended or end
        if self.open:
            self.watch()

    def watch(self) -> None:
        """Write when the descriptor is ready, or close it when everything is written."""
        if self._chunks:
            self._reactor.add(self._descriptor, WRITE, lambda _: self._feed())
        elif self._ended:
            self.close()
        else:
            # A reader that went away would be reported again and again.
            self._reactor.remove(self._descriptor)

    def close(self) -> None:
        """Write no more."""
        if self.open:
            self._reactor.remove(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if self._chunks:
            if self._dropped is not None:
                self._dropped(sum(map(len, self._chunks)))
            self._chunks.clear()

    def _feed(self) -> None:
        chunk = self._chunks[0]
        try:
            written = os.write(self._descriptor, chunk)
        except BlockingIOError:
            return
        except OSError:
            # It is not read to its end, which is the reader's own affair.
            self.close()
            return
        if written < len(chunk):
            self._chunks[0] = chunk[written:]
        else:
            self._chunks.popleft()
        self._consumed(written)
        if not self._chunks:
            self.watch()

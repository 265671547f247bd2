"""What is kept of an output in constant memory: the head and tail of a command's, the last bytes of a job's."""

from __future__ import annotations

import bisect
import math

_END_BYTES = 256
MARKER = "\n[hermes: {} bytes left out]\n"
MOST_TIMES = 1000
"""Their list must fit into the frame of an answer."""


class KeptOutput:
    """Counts everything, keeps at most `cap` bytes: the first and the last half of them."""

    __slots__ = ("_head", "_head_cap", "_tail", "_tail_cap", "total")

    def __init__(self, cap: int) -> None:
        self._tail_cap = cap // 2
        self._head_cap = cap - self._tail_cap
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        """Take note of `data`."""
        self.total += len(data)
        room = self._head_cap - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            tail = self._tail
            tail += data
            # Trimmed at twice the size, so that the bytes which move are few against those that were read.
            if len(tail) > 2 * self._tail_cap + 65536:
                del tail[: len(tail) - self._tail_cap]

    @property
    def truncated(self) -> bool:
        """Whether anything was left out."""
        return self.total > self._head_cap + self._tail_cap

    def end(self) -> bytes:
        """Return the last bytes, a line or two of them."""
        return bytes((self._tail or self._head)[-_END_BYTES:])

    def body(self) -> bytes:
        """Return what was kept, with a counted marker in the place of what was left out."""
        if not self.truncated:
            return bytes(self._head + self._tail)
        left_out = self.total - self._head_cap - self._tail_cap
        tail = self._tail[len(self._tail) - self._tail_cap :]
        return bytes(self._head + MARKER.format(left_out).encode() + tail)


class RecentOutput:
    """Counts everything, keeps the last `cap` bytes of it and when they came."""

    __slots__ = ("_cap", "_kept", "_times", "total")

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._kept = bytearray()
        self._times: list[tuple[int, float]] = []
        self.total = 0

    def add(self, data: bytes, seconds: float) -> None:
        """Take note of `data`, which came `seconds` after the start."""
        self._times.append((self.total, round(seconds, 4)))
        if len(self._times) > MOST_TIMES:
            self._forget_times()
        self.total += len(data)
        self._kept += data
        if len(self._kept) > self._cap:
            del self._kept[: len(self._kept) - self._cap]

    def _forget_times(self) -> None:
        begin = self.begin
        current = bisect.bisect_right(self._times, (begin, math.inf)) - 1
        del self._times[: max(0, current)]
        if len(self._times) > MOST_TIMES // 2:
            # Every second one: what came in two reads then counts as having come with the first.
            del self._times[1::2]

    @property
    def begin(self) -> int:
        """Where the first byte that is still here stood in the whole output."""
        return self.total - len(self._kept)

    def part(self, offset: int, size: int) -> tuple[int, bytes]:
        """Return at most `size` bytes from `offset` on, or from the first that is still here; and where they begin."""
        begin = self.begin
        offset = min(max(offset, begin), self.total)
        return offset, bytes(self._kept[offset - begin : offset - begin + size])

    def times(self, offset: int, end: int) -> list[tuple[int, float]]:
        """Return (offset, seconds) of the reads that the bytes from `offset` to before `end` came in."""
        if offset == end:
            return []
        first = max(0, bisect.bisect_right(self._times, (offset, math.inf)) - 1)
        return self._times[first : bisect.bisect_left(self._times, (end, 0.0))]

"""What is kept of a command's output: its head and its tail, in constant memory."""

from __future__ import annotations

MARKER = "\n[hermes: {} bytes left out]\n"


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

    def body(self) -> bytes:
        """Return what was kept, with a counted marker in the place of what was left out."""
        if not self.truncated:
            return bytes(self._head + self._tail)
        left_out = self.total - self._head_cap - self._tail_cap
        tail = self._tail[len(self._tail) - self._tail_cap :]
        return bytes(self._head + MARKER.format(left_out).encode() + tail)

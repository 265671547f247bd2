"""Frames on their way out, in the order that keeps everyone's delay short."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from hermes_sandboxd import CHUNK_BYTES, encode_frame

if TYPE_CHECKING:
    from hermes_core.sandbox._exchange import Upload

__all__ = ["WRITE_BYTES", "Outbox"]

WRITE_BYTES = 2 * CHUNK_BYTES
"""About how much leaves in one write: enough to amortise the system call, too little to delay what comes next."""

ACKS_TOGETHER = 16
"""Acknowledgements wait until there are so many, and then ride on the next write: a frame for each would cost both
ends as much as a request."""

MOST_ACKS = 64
"""With so many, a write is made for them."""

ACKS_PER_FRAME = 1000
"""Keeps the line of an `ack` far below the limit of a line."""


class Outbox:
    """Control frames first and in order, then chunks of large bodies round-robin; acknowledgements ride along."""

    __slots__ = ("_acks", "_control", "_flush_acks", "_uploads", "batch_sizes")

    def __init__(self) -> None:
        self._control: deque[tuple[bytes, bool]] = deque()
        self._uploads: deque[Upload] = deque()
        self._acks: list[int] = []
        self._flush_acks = False
        self.batch_sizes: Counter[int] = Counter()
        """How many requests travelled in one write, to how often."""

    def clear(self) -> None:
        """Forget every frame; acknowledgements stay, because the daemon waits for them in any connection."""
        self._control.clear()
        self._uploads.clear()

    def control(self, frame: bytes, *, is_request: bool = False) -> None:
        """Queue a frame that goes before any waiting data."""
        self._control.append((frame, is_request))

    def upload(self, upload: Upload) -> None:
        """Queue the body of a request whose frame was queued before; again when its window opens."""
        if upload not in self._uploads:
            self._uploads.append(upload)

    def ack(self, request_id: int, *, now: bool) -> bool:
        """Queue an acknowledgement for the next write; return whether there should be one soon."""
        self._acks.append(request_id)
        self._flush_acks = self._flush_acks or now or len(self._acks) >= MOST_ACKS
        return self._flush_acks

    def take(self) -> bytes:
        """Return what to write next, whole frames only; empty when there is nothing."""
        control = self._control
        parts: list[bytes] = []
        size = requests = 0
        while control and size < WRITE_BYTES:
            frame, is_request = control.popleft()
            parts.append(frame)
            size += len(frame)
            requests += is_request
        while self._uploads and size < WRITE_BYTES:
            size += self._take_chunk(parts)
        if self._flush_acks or (parts and len(self._acks) >= ACKS_TOGETHER):
            self._take_acks(parts)
        if requests:
            self.batch_sizes[requests] += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take_chunk(self, parts: list[bytes]) -> int:
        upload = self._uploads.popleft()
        if not upload.ready:
            return 0
        end = min(upload.offset + min(CHUNK_BYTES, upload.window), len(upload.data))
        chunk = upload.data[upload.offset : end]
        params: dict[str, object] = {"id": upload.request_id, "channel": "body", "offset": upload.offset}
        if end == len(upload.data):
            params["end"] = True
        parts.append(encode_frame({"jsonrpc": "2.0", "method": "data", "params": params}, chunk))
        upload.window -= len(chunk)
        upload.offset = end
        if upload.ready:
            self._uploads.append(upload)
        return len(chunk)

    def _take_acks(self, parts: list[bytes]) -> None:
        for start in range(0, len(self._acks), ACKS_PER_FRAME):
            ids = self._acks[start : start + ACKS_PER_FRAME]
            parts.append(encode_frame({"jsonrpc": "2.0", "method": "ack", "params": {"ids": ids}}))
        self._acks.clear()
        self._flush_acks = False

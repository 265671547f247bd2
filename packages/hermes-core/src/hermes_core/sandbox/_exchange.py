"""One request on its way, and the bodies that belong to it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from anyio import Event

from hermes_core.exceptions import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Exchange", "Upload"]


class Upload:
    """A request body that is too large to travel inside its request."""

    __slots__ = ("data", "offset", "request_id", "window")

    def __init__(self, request_id: int, data: memoryview, window: int) -> None:
        self.request_id = request_id
        self.data = data
        self.offset = 0
        self.window = window

    @property
    def ready(self) -> bool:
        """Whether something may be sent now."""
        return self.window > 0 and self.offset < len(self.data)


class Exchange:
    """One request, from being asked to being answered.

    The caller waits on `changed`; everything else is written by the session, synchronously, so that a caller may go
    away at any moment and leave nothing half done.

    Attributes:
        request_id: Its id within the session.
        slot: The slot that it is about, or None.
        message: The request as it was sent, for sending it again.
        inline: The body that travels inside the request frame.
        upload: The body that follows it, or None.
        live: Whether live output is queued for the caller.
        sent: Whether it may have reached the daemon.
        cancelled: It was asked to end.
        abandoned: Its caller is gone: what arrives is dropped.
        answered: `result`, `refusal` or `lost` is set.
        answer_body: The body inside the answer frame, or None.
    """

    __slots__ = (
        "abandoned",
        "answer_body",
        "answered",
        "cancelled",
        "changed",
        "chunks",
        "inline",
        "live",
        "lost",
        "message",
        "output",
        "received",
        "refusal",
        "request_id",
        "result",
        "sent",
        "slot",
        "uncredited",
        "upload",
    )

    def __init__(
        self, request_id: int, slot: int | None, message: dict[str, Any], inline: bytes | None, upload: Upload | None
    ) -> None:
        self.request_id = request_id
        self.slot = slot
        self.message = message
        self.inline = inline
        self.upload = upload
        self.live = False
        self.sent = False
        self.cancelled = False
        self.abandoned = False
        self.answered = False
        self.answer_body: bytes | None = None
        self.result: Mapping[str, Any] | None = None
        self.refusal: Mapping[str, Any] | None = None
        self.lost: str | None = None
        self.changed = Event()
        self.received: dict[str, int] = {}
        self.chunks: dict[str, list[bytes]] = {}
        self.output: deque[tuple[str, bytes, int]] = deque()
        self.uncredited = 0

    def fresh(self, channel: str, offset: int, body: bytes) -> bytes:
        """Return the part of a chunk that was not received before, and count it.

        After a reconnect the daemon may send again what is already here.
        """
        received = self.received.get(channel, 0)
        if offset > received:
            raise ProtocolError(f"a chunk of {channel} is missing: got offset {offset}, expected {received}")
        body = body[received - offset :]
        self.received[channel] = received + len(body)
        return body

    def bodies(self) -> dict[str, list[bytes]]:
        """Return the chunks of each channel of the answer."""
        lengths: Mapping[str, int] = (self.result or {}).get("bodies") or {}
        if self.answer_body is None:
            return {channel: self.chunks.get(channel, []) for channel in lengths}
        parts: dict[str, list[bytes]] = {}
        position = 0
        for channel, length in lengths.items():
            parts[channel] = [self.answer_body[position : position + length]]
            position += length
        return parts

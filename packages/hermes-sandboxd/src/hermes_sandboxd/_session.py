"""Sessions: what belongs to a client and outlives its connections."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes_sandboxd._frames import FrameError, encode_frame
from hermes_sandboxd._protocol import WINDOW_BYTES, Refusal, answer, notification, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_sandboxd._connection import Connection
    from hermes_sandboxd._slot import Slot

_MOST_REQUESTS = 4096
_MOST_HELD_BYTES = 512 << 20
_WEIGHED_EVERY = 64


class Chunk(NamedTuple):
    """A piece of an outgoing body: `method` is "data" or "output"."""

    method: str
    channel: str
    offset: int
    data: bytes

    @property
    def key(self) -> str:
        """The name of its channel in `resume`."""
        return self.channel if self.method == "data" else f"output:{self.channel}"

    def frame(self, request_id: int) -> bytes:
        """Return the chunk as a frame."""
        name = "channel" if self.method == "data" else "stream"
        return encode_frame(
            notification(self.method, **{"id": request_id, name: self.channel, "offset": self.offset}), self.data
        )


class Request:
    """One request of a session, from its arrival until its answer is acknowledged."""

    __slots__ = (
        "_credited",
        "_offered",
        "_resumed",
        "answer",
        "awaits_resume",
        "body",
        "cancelled",
        "consumed",
        "id",
        "incoming",
        "method",
        "params",
        "received",
        "retained",
        "session",
        "slot",
        "unsent",
    )

    def __init__(self, session: Session, request_id: int, method: str, params: dict[str, Any], body: bytes) -> None:
        self.session = session
        self.id = request_id
        self.method = method
        self.params = params
        self.body = body
        self.slot: Slot | None = None
        self.cancelled = False
        self.awaits_resume = False
        """A new connection has not asked for it yet: nothing goes out before the client has said what it has."""
        self.answer: bytes | None = None
        self.retained: deque[Chunk] = deque()
        """Sent or not, but not credited: at most one window, which the supervisor keeps to."""
        self.unsent: deque[Chunk] = deque()
        self._resumed = True
        self.incoming: deque[tuple[bytes, bool]] = deque()
        """Chunks of the request's body that arrived before its turn came."""
        self.received = 0
        self.consumed = 0
        self._offered = 0
        self._credited = 0

    @property
    def _connection(self) -> Connection | None:
        return self.session.connection if self._resumed else None

    def pause(self) -> None:
        """Send nothing on a new connection before the client has said there what it already has."""
        self._resumed = False
        self.unsent.clear()

    # The request's body, on its way in.

    def take(self, offset: int, data: bytes, end: bool) -> bytes:
        """Return what is new of a chunk of the body that was sent on this connection.

        Raises:
            ValueError: The client leaves something out, or sends what it did not announce or has no credit for.
        """
        size = self.params["body"]["size"] if "body" in self.params else 0
        if not 0 <= offset <= self.received or offset + len(data) > size or (end and offset + len(data) < size):
            raise ValueError(f"request {self.id}: {len(data)} bytes at {offset} are no part of its body")
        self._offered = offset + len(data)
        new = data[self.received - offset :]
        self.received += len(new)
        if self.received - self.consumed > WINDOW_BYTES:
            raise ValueError(f"request {self.id}: more of its body than there is credit for")
        self.give_credit()
        return new

    def consume(self, count: int) -> None:
        """Take note that the supervisor consumed `count` bytes of the body."""
        self.consumed += count
        self.give_credit()

    def give_credit(self) -> None:
        """Credit the client with what it sent on this connection and the supervisor has consumed."""
        due = min(self._offered, self.consumed) - self._credited
        if due > 0 and self.session.connection is not None and not self.awaits_resume:
            self._credited += due
            self.session.connection.send(encode_frame(notification("credit", id=self.id, bytes=due)))

    # The answer's bodies, on their way out.

    def push(self, chunk: Chunk) -> None:
        """Send a chunk of an outgoing body when the connection has room, and keep it until it is credited."""
        self.retained.append(chunk)
        connection = self._connection
        if connection is not None and not self.awaits_resume:
            self.unsent.append(chunk)
            connection.wants_to_send(self)

    def release(self, count: int) -> int:
        """Forget `count` bytes that the client has consumed; return how many of them there were."""
        left = count
        while left > 0 and self.retained:
            chunk = self.retained[0]
            if len(chunk.data) > left:
                self.retained[0] = _rest(chunk, left)
                return count
            left -= len(chunk.data)
            self.retained.popleft()
        return count - left

    def resume(self, offsets: dict[str, Any]) -> int:
        """Prepare to send again what a new connection lacks; return how many bytes the client turned out to have."""
        self.awaits_resume = False
        self._resumed = True
        self._offered = self._credited = 0
        kept: deque[Chunk] = deque()
        known = 0
        for chunk in self.retained:
            offset = offsets.get(chunk.key, 0)
            have = min(max(0, offset - chunk.offset), len(chunk.data)) if type(offset) is int else 0
            known += have
            if have < len(chunk.data):
                kept.append(_rest(chunk, have) if have else chunk)
        self.retained = kept
        self.unsent = deque(kept)
        return known

    def finish(self, message: dict[str, Any], body: bytes | None = None) -> None:
        """Answer the request."""
        if self.answer is not None:
            return
        try:
            self.answer = encode_frame(message, body)
        except FrameError as error:
            self.answer = encode_frame(refusal(self.id, Refusal("internal", f"the answer cannot be sent: {error}")))
        self.incoming.clear()
        self.params = {}
        self.body = b""
        connection = self._connection
        if connection is not None and not self.unsent and not self.awaits_resume:
            connection.send(self.answer)

    def succeed(self, result: dict[str, Any]) -> None:
        """Answer with a result that has no bodies."""
        self.finish(answer(self.id, result))

    def refuse(self, error: Refusal) -> None:
        """Answer with an error."""
        # Data that was promised to an answer which never comes has no meaning.
        self.retained.clear()
        self.unsent.clear()
        self.finish(refusal(self.id, error))

    @property
    def held_bytes(self) -> int:
        """How much memory its bodies and its answer take."""
        sent = sum(len(chunk.data) for chunk in self.retained)
        if self.answer is not None:
            return sent + len(self.answer)
        return sent + len(self.body) + self.received - self.consumed


def _rest(chunk: Chunk, count: int) -> Chunk:
    return chunk._replace(offset=chunk.offset + count, data=chunk.data[count:])


class Session:
    """One client: its requests, and the connection that it has at the moment."""

    def __init__(self, name: str, grace_s: float, expired: Callable[[Session], None]) -> None:
        self.name = name
        self.connection: Connection | None = None
        self.ended = False
        """It was told to end: nothing of it will be taken up again."""
        self.requests: dict[int, Request] = {}
        self._grace_s = grace_s
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None
        self._acknowledged = 0
        self._until_weighed = _WEIGHED_EVERY

    def attach(self, connection: Connection) -> None:
        """Make `connection` the session's; an older one is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.connection is not None:
            self.connection.evict()
        self.connection = connection
        for request in self.requests.values():
            request.awaits_resume = True
            request.unsent.clear()

    def detach(self, connection: Connection) -> None:
        """The connection is gone: wait for another one, but not for ever."""
        if self.connection is not connection:
            return
        self.connection = None
        for request in self.requests.values():
            request.pause()
        if not self.ended:
            self._timer = asyncio.get_running_loop().call_later(self._grace_s, self._expired, self)

    def check_room(self) -> None:
        """See that the client acknowledges what it was answered, before it asks for more.

        Raises:
            Refusal: Too much is kept for it.
        """
        if len(self.requests) >= _MOST_REQUESTS:
            raise Refusal("too_many_requests", f"{len(self.requests)} requests are not answered or not acknowledged")
        self._until_weighed -= 1
        if self._until_weighed > 0:
            return
        # Adding up costs more than a request, so it is done once in a while, and at once again after it was too much.
        held = sum(request.held_bytes for request in self.requests.values())
        self._until_weighed = _WEIGHED_EVERY if held <= _MOST_HELD_BYTES else 1
        if held > _MOST_HELD_BYTES:
            raise Refusal("too_many_requests", f"{held} bytes of requests and answers are not acknowledged")

    def is_stale(self, request_id: int) -> bool:
        """Tell whether an unknown id is too old to be a new request."""
        return request_id <= self._acknowledged

    def acknowledge(self, ids: list[int]) -> None:
        """Forget answers that arrived."""
        for request_id in ids:
            request = self.requests.get(request_id) if type(request_id) is int else None
            if request is not None and request.answer is not None:
                del self.requests[request_id]
                self._acknowledged = max(self._acknowledged, request_id)

"""One connection of a client: frames in, frames out, nobody delayed by anybody's gigabytes."""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from hermes_sandboxd._frames import FrameDecoder, FrameError, encode_frame
from hermes_sandboxd._params import checked
from hermes_sandboxd._protocol import PROTOCOL_VERSION, Refusal, answer, refusal
from hermes_sandboxd._session import Request, Session

if TYPE_CHECKING:
    from hermes_sandboxd._daemon import Daemon

_HIGH_WATER = 256 << 10
_MOST_UNREAD_BYTES = 4 << 20
"""With so much waiting for a client that does not read, nothing more is read from it either."""
HELLO_S = 30.0


# Shared by all connections: what is in it is handled before the next one reads.
_buffer = memoryview(bytearray(262144))


class Connection(asyncio.BufferedProtocol):
    """Speaks the protocol over one byte stream."""

    def __init__(self, daemon: Daemon, token: str | None) -> None:
        self._daemon = daemon
        self._token = token
        self._decoder = FrameDecoder()
        self._session: Session | None = None
        self._ready: deque[Request] = deque()
        self._paused = False
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hello_timer: asyncio.TimerHandle | None = None

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._daemon.connections.add(self)
        self._hello_timer = asyncio.get_running_loop().call_later(HELLO_S, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; its session stays for a while."""
        self._daemon.connections.discard(self)
        self.lost.set_result(None)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._session is not None:
            self._session.detach(self)
            self._daemon.attended()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the event loop puts what comes."""
        # Always the same memory: a new buffer for each frame would be mapped and unmapped each time.
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what the client sent."""
        try:
            frames = self._decoder.feed(_buffer[:nbytes])
            for message, body in frames:
                if self._transport.is_closing():
                    return
                self._handle(message, body)
        except (FrameError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            self._daemon.log(f"connection closed: not this protocol: {error!r}")
            self._transport.abort()

    def pause_writing(self) -> None:
        """The client does not read fast enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused = False
        self._transport.resume_reading()
        self._pump()

    # Called by sessions and requests.

    def send(self, frame: bytes) -> None:
        """Send a control frame: before all data that waits."""
        if not self._transport.is_closing():
            self._transport.write(frame)
            if self._transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
                self._transport.pause_reading()

    def wants_to_send(self, request: Request) -> None:
        """Send the request's data in turns with that of others."""
        if len(request.unsent) == 1:
            self._ready.append(request)
        self._pump()

    def evict(self) -> None:
        """Close: another connection has taken over the session."""
        self._session = None
        self._transport.abort()

    def close(self) -> None:
        """Close after what was sent has gone out."""
        self._transport.close()

    def _pump(self) -> None:
        ready = self._ready
        while ready and not self._paused and not self._transport.is_closing():
            request = ready.popleft()
            if not request.unsent:
                continue
            self._transport.write(request.unsent.popleft().frame(request.id))
            if request.unsent:
                ready.append(request)
            elif request.answer is not None:
                self._transport.write(request.answer)

    # What a client says.

    def _handle(self, message: dict[str, Any], body: bytes | None) -> None:
        method = message["method"]
        request_id = message.get("id")
        if request_id is not None and (type(request_id) is not int or request_id <= 0):
            raise ValueError("a request id must be a positive integer")
        if self._session is None:
            self._hello(request_id, method, message.get("params") or {})
        elif request_id is not None:
            self._request(self._session, request_id, message, body or b"")
        else:
            self._notification(self._session, method, message["params"], body or b"")

    def _hello(self, request_id: int | None, method: str, params: dict[str, Any]) -> None:
        try:
            if method != "hello" or request_id is None:
                raise Refusal("unauthorized", "the first frame must be the request hello")
            if params.get("protocol") != PROTOCOL_VERSION:
                raise Refusal("unsupported_protocol", f"this daemon speaks protocol {PROTOCOL_VERSION}")
            token = params.get("token")
            if self._token is not None:
                given = token if isinstance(token, str) else ""
                if not hmac.compare_digest(given.encode(errors="replace"), self._token.encode(errors="replace")):
                    raise Refusal("unauthorized", "wrong token")
            name = params.get("session")
            if not isinstance(name, str) or not name or len(name) > 200:
                raise Refusal("bad_request", "hello: session must be a short string")
        except Refusal as error:
            self.send(encode_frame(refusal(request_id, error)))
            self._transport.close()
            return
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        self._session, resumed = self._daemon.session(name)
        self._session.attach(self)
        self._daemon.attended()
        self.send(encode_frame(answer(request_id, self._daemon.describe(resumed))))

    def _request(self, session: Session, request_id: int, message: dict[str, Any], body: bytes) -> None:
        known = session.requests.get(request_id)
        if known is not None:
            self._resume(known, message.get("resume") or {})
            return
        if session.is_stale(request_id):
            self.send(encode_frame(refusal(request_id, Refusal("stale_id", f"{request_id} was acknowledged"))))
            return
        try:
            session.check_room()
        except Refusal as error:
            # Not remembered: it may be asked again under the same id.
            self.send(encode_frame(refusal(request_id, error)))
            return
        request = Request(session, request_id, message["method"], {}, body)
        session.requests[request_id] = request
        try:
            request.params = checked(request.method, message.get("params") or {})
            self._daemon.dispatch(request)
        except Refusal as error:
            request.refuse(error)

    def _resume(self, request: Request, offsets: dict[str, Any]) -> None:
        known = request.resume(offsets)
        if known and request.slot is not None:
            request.slot.credit(request, known)
        if request.unsent:
            self._ready.append(request)
            self._pump()
        elif request.answer is not None:
            self.send(request.answer)

    def _notification(self, session: Session, method: str, params: dict[str, Any], body: bytes) -> None:
        if method == "ack":
            session.acknowledge(params["ids"])
            return
        request = session.requests.get(_whole(params["id"]))
        if request is None or request.slot is None:
            # Answered and acknowledged while this was on its way, or refused.
            return
        if method == "data":
            if request.answer is None:
                end = params.get("end") is True
                new = request.take(_whole(params["offset"]), body, end)
                request.slot.data(request, new, end)
        elif method == "credit":
            # Credit for what was never sent would let the daemon hold more than a window for this client.
            released = request.release(_whole(params["bytes"]))
            if released:
                request.slot.credit(request, released)
        elif method == "cancel":
            request.slot.cancel(request)


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:50]!r} is not a whole number")
    return value

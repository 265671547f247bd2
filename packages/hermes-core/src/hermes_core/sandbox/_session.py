"""The client's half of a session: every request that is not answered yet. Synchronous, without any stream."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import ProtocolError, SandboxLostError, UsageError
from hermes_core.sandbox._exchange import Exchange, Upload
from hermes_core.sandbox._outbox import Outbox
from hermes_sandboxd import INLINE_BYTES, WINDOW_BYTES, FrameError, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hermes_sandboxd._frames import Frame

__all__ = ["HELLO_ID", "Session"]

HELLO_ID = 1
"""Every connection opens with a `hello` under the session's first id; requests follow it."""

CREDIT_BYTES = WINDOW_BYTES // 4
"""Credit is given in lumps of this size: the sender never runs dry, and few frames are spent on it."""


class Session:
    """Requests, their answers, credit and acknowledgements, over any number of connections.

    Args:
        wake: Called when there is something to write.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._ids = count(HELLO_ID + 1)
        self._pending: dict[int, Exchange] = {}  # ascending by id, as a dict keeps insertion order
        self._outbox = Outbox()
        self._connected = False
        self._connection = 0
        self.lost: str | None = None
        self.batch_sizes = self._outbox.batch_sizes
        self.take = self._outbox.take

    # What callers do

    def open(
        self, method: str, params: dict[str, Any], *, slot: int | None, body: bytes | memoryview, live: bool
    ) -> Exchange:
        """Queue a request.

        Raises:
            SandboxLostError: The sandbox is gone.
            UsageError: The request does not fit into a frame.
        """
        if self.lost is not None:
            raise SandboxLostError(self.lost)
        request_id = next(self._ids)
        inline = upload = None
        if len(body) > INLINE_BYTES:
            upload = Upload(request_id, memoryview(body), WINDOW_BYTES)
            params = {**params, "body": {"size": len(body)}}
        elif body:
            inline = bytes(body)
        message = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
        exchange = Exchange(request_id, slot, message, inline, upload)
        exchange.live = live
        try:
            frame = encode_frame(message, inline)
        except FrameError as error:
            raise UsageError(
                f"the request is too long: {error}", hint="write long input to a file or pass it as stdin"
            ) from None
        self._pending[request_id] = exchange
        if self._connected:
            self._send(exchange, frame)
        return exchange

    def abandon(self, exchange: Exchange) -> None:
        """The caller is gone: ask for the request to end, and drop what still arrives of it."""
        if exchange.abandoned or exchange.answered:
            return
        exchange.abandoned = True
        exchange.chunks.clear()
        if not exchange.sent:
            del self._pending[exchange.request_id]
            return
        self._cancel(exchange)
        uncredited = sum(
            size for _, data, epoch in exchange.output if (size := len(data)) and epoch == self._connection
        )
        exchange.output.clear()
        self.consumed(exchange, uncredited, self._connection)

    def cancel_slot(self, slot: int) -> None:
        """Ask every request of a slot to end; callers that still wait learn how it ended."""
        for exchange in [exchange for exchange in self._pending.values() if exchange.slot == slot]:
            if exchange.sent:
                self._cancel(exchange)
            else:
                self._settle(exchange, refusal={"message": "cancelled", "data": {"kind": "cancelled"}})

    def consumed(self, exchange: Exchange, size: int, connection: int) -> None:
        """Count bytes as consumed, and give credit for them now and then.

        Args:
            exchange: The request whose bytes they are.
            size: How many.
            connection: The connection that brought them: a later one began with a fresh window.
        """
        if connection != self._connection or not size:
            return
        exchange.uncredited += size
        if exchange.uncredited >= CREDIT_BYTES and self._connected and not exchange.answered:
            self._notify("credit", id=exchange.request_id, bytes=exchange.uncredited)
            exchange.uncredited = 0

    # What connections do

    def connected(self) -> None:
        """A new connection said hello: everything that is unanswered is sent again."""
        self._connected = True
        self._outbox.clear()
        for exchange in self._pending.values():
            message = exchange.message
            if exchange.sent:
                message = {**message, "resume": dict(exchange.received)}
            if exchange.upload is not None:
                exchange.upload.offset, exchange.upload.window = 0, WINDOW_BYTES
            exchange.uncredited = 0
            self._send(exchange, encode_frame(message, exchange.inline))
            if exchange.cancelled:
                self._cancel(exchange)

    def disconnected(self) -> None:
        """The connection is gone; requests wait for the next one."""
        self._connected = False
        self._connection += 1
        self._outbox.clear()

    def lose(self, reason: str) -> None:
        """The sandbox is gone, and with it the outcome of every request."""
        if self.lost is not None:
            return
        self.lost = reason
        self._connected = False
        self._outbox.clear()
        for exchange in list(self._pending.values()):
            self._settle(exchange, lost=reason)

    def receive(self, frames: Iterable[Frame]) -> None:
        """Take frames that arrived.

        Raises:
            ProtocolError: The daemon broke the protocol.
        """
        for message, body in frames:
            if "method" not in message:
                self._answered(message, body)
                continue
            params = message["params"]
            exchange = self._pending.get(params["id"])
            if exchange is None:
                continue  # it was answered while this was on its way
            method = message["method"]
            if method == "data":
                self._data(exchange, params, body or b"")
            elif method == "output":
                self._output(exchange, params, body or b"")
            elif method == "credit":
                self._credit(exchange, params["bytes"])
            else:
                raise ProtocolError(f"the sandbox daemon sent an unknown notification {method!r}")

    # Inside

    def _send(self, exchange: Exchange, frame: bytes) -> None:
        exchange.sent = True
        self._outbox.control(frame, is_request=True)
        if exchange.upload is not None and not exchange.cancelled:
            self._outbox.upload(exchange.upload)
        self._wake()

    def _notify(self, method: str, **params: object) -> None:
        self._outbox.control(encode_frame({"jsonrpc": "2.0", "method": method, "params": params}))
        self._wake()

    def _cancel(self, exchange: Exchange) -> None:
        exchange.cancelled = True
        if exchange.upload is not None:
            exchange.upload.window = 0  # no more of its body
        if self._connected:
            self._notify("cancel", id=exchange.request_id)

    def _answered(self, message: dict[str, Any], body: bytes | None) -> None:
        request_id = message.get("id")
        if not isinstance(request_id, int):
            raise ProtocolError(f"the sandbox daemon closed the session: {message.get('error')}")
        exchange = self._pending.get(request_id)
        if exchange is not None:
            exchange.answer_body = body
            self._settle(exchange, result=message.get("result"), refusal=message.get("error"))
        received = sum(exchange.received.values()) if exchange is not None else 0
        # The daemon keeps an answer until it is acknowledged: a large one should not stay there until the next call.
        if self._outbox.ack(request_id, now=received > INLINE_BYTES):
            self._wake()

    def _settle(
        self,
        exchange: Exchange,
        *,
        result: dict[str, Any] | None = None,
        refusal: dict[str, Any] | None = None,
        lost: str | None = None,
    ) -> None:
        del self._pending[exchange.request_id]
        exchange.result, exchange.refusal, exchange.lost = result, refusal, lost
        exchange.answered = True
        if exchange.upload is not None:
            exchange.upload.window = 0
        exchange.changed.set()

    def _data(self, exchange: Exchange, params: dict[str, Any], body: bytes) -> None:
        channel = params["channel"]
        fresh = exchange.fresh(channel, params["offset"], body)
        if fresh and not exchange.abandoned:
            exchange.chunks.setdefault(channel, []).append(fresh)
        self.consumed(exchange, len(body), self._connection)

    def _output(self, exchange: Exchange, params: dict[str, Any], body: bytes) -> None:
        stream = params["stream"]
        fresh = exchange.fresh(f"output:{stream}", params["offset"], body)
        if fresh and exchange.live and not exchange.abandoned:
            exchange.output.append((stream, fresh, self._connection))
            exchange.changed.set()
            body = body[: len(body) - len(fresh)]  # the rest counts when the caller took it
        self.consumed(exchange, len(body), self._connection)

    def _credit(self, exchange: Exchange, size: int) -> None:
        upload = exchange.upload
        if upload is not None and not exchange.cancelled:
            upload.window += size
            if upload.ready:
                self._outbox.upload(upload)
                self._wake()

"""A supervisor's end of the socket to its daemon: frames, never blocking."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Optional

from hermes_sandboxd._frames import FrameDecoder, encode_frame
from hermes_sandboxd._protocol import CHUNK_BYTES, WINDOW_BYTES, notification
from hermes_sandboxd._reactor import READ, WRITE, Reactor

if TYPE_CHECKING:
    import socket

_CONGESTED_BYTES = 4 * CHUNK_BYTES

Handler = Callable[[dict[str, Any], Optional[bytes]], None]


class Link:
    """Sends and receives frames over a non-blocking socket that a reactor watches."""

    def __init__(self, sock: socket.socket, reactor: Reactor, handler: Handler) -> None:
        self._sock = sock
        self._reactor = reactor
        self._handler = handler
        self._decoder = FrameDecoder()
        self._waiting = bytearray()
        # Used again and again; most calls touch one page of it.
        self._buffer = memoryview(bytearray(2 * CHUNK_BYTES))
        self.closed = False
        self.on_relief: Callable[[], None] | None = None
        """Called when a congested link can take more."""
        sock.setblocking(False)
        reactor.add(sock.fileno(), READ, self._ready)

    @property
    def congested(self) -> bool:
        """Whether bodies should wait; frames that are sent anyway are kept in memory."""
        return len(self._waiting) >= _CONGESTED_BYTES

    def send(self, message: dict[str, Any], body: bytes | None = None) -> None:
        """Send a frame now or as soon as the socket takes it."""
        data = encode_frame(message, body)
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.closed = True
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._reactor.add(self._sock.fileno(), READ | WRITE, self._ready)
        self._waiting += data

    def _ready(self, events: int) -> None:
        if events & WRITE and self._waiting:
            self._flush()
        if events & ~WRITE:
            self._receive()

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._waiting)
        except BlockingIOError:
            return
        except OSError:
            self.closed = True
            return
        del self._waiting[:sent]
        if not self._waiting:
            self._reactor.add(self._sock.fileno(), READ, self._ready)
        if self.on_relief is not None and not self.congested:
            self.on_relief()

    def _receive(self) -> None:
        try:
            size = self._sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size == 0:
            self.closed = True
            return
        for message, body in self._decoder.feed(self._buffer[:size]):
            self._handler(message, body)


class Outflow:
    """The outgoing bodies of one request: sent in chunks, in order, as far as the receiver's credit goes."""

    def __init__(self, link: Link, request_id: int) -> None:
        self._link = link
        self._id = request_id
        self._window = WINDOW_BYTES
        self._queue: deque[tuple[str, str, int, memoryview]] = deque()

    @property
    def open(self) -> bool:
        """Whether more may be produced: nothing waits and there is credit."""
        return not self._queue and self._window > 0 and not self._link.congested

    @property
    def empty(self) -> bool:
        """Whether everything was handed to the link."""
        return not self._queue

    def push(self, method: str, channel: str, offset: int, data: bytes) -> None:
        """Queue `data`, which begins at `offset` of `channel`; `method` is "data" or "output"."""
        if data:
            self._queue.append((method, channel, offset, memoryview(data)))
            self.pump()

    def credit(self, count: int) -> None:
        """Take credit from the receiver."""
        self._window += count
        self.pump()

    def pump(self) -> None:
        """Send as much as credit and link allow."""
        while self._queue and self._window > 0 and not self._link.congested:
            method, channel, offset, data = self._queue.popleft()
            size = min(len(data), CHUNK_BYTES, self._window)
            if size < len(data):
                self._queue.appendleft((method, channel, offset + size, data[size:]))
            self._window -= size
            name = "stream" if method == "output" else "channel"
            message = notification(method, **{"id": self._id, name: channel, "offset": offset})
            self._link.send(message, bytes(data[:size]))

"""The daemon's ends of its sockets: to the zygote, and to the supervisor of each slot."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
from typing import Any, Callable

from hermes_sandboxd._frames import FrameDecoder, FrameError, encode_frame
from hermes_sandboxd._linux import receive_descriptors
from hermes_sandboxd._protocol import Refusal

_RECEIVE_BYTES = 262144
# Shared by all links: what is in it is handled before the next one reads.
_buffer = memoryview(bytearray(_RECEIVE_BYTES))


class ZygoteLink:
    """Asks the zygote for supervisors, and learns of their ends."""

    def __init__(self, sock: socket.socket, lost: Callable[[], None]) -> None:
        self._sock = sock
        self._lost = lost
        self._forked: dict[int, asyncio.Future[int]] = {}
        self._exited: dict[int, asyncio.Future[None]] = {}
        self._swept: dict[int, asyncio.Future[None]] = {}
        self._sweeps = itertools.count()
        sock.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)

    def fork(self, slot: int, descriptors: list[int]) -> asyncio.Future[int]:
        """Fork a supervisor that is given `descriptors`; the future is its pid."""
        future = self._forked[slot] = self._loop.create_future()
        socket.send_fds(self._sock, [json.dumps({"do": "fork", "slot": slot}).encode()], descriptors)
        return future

    def kill(self, pid: int) -> None:
        """Kill a supervisor."""
        if not self._exited[pid].done():
            self._tell({"do": "kill", "pid": pid})

    def ended(self, pid: int) -> asyncio.Future[None]:
        """Return the future that is done when the supervisor has been reaped."""
        return self._exited[pid]

    def sweep(self, uid: int | None) -> asyncio.Future[None]:
        """Kill what supervisors that ended left behind, and all of the user `uid`; the future is done when it is so."""
        number = next(self._sweeps)
        future = self._swept[number] = self._loop.create_future()
        self._tell({"do": "sweep", "sweep": number, "uid": uid})
        return future

    def forget(self, pid: int) -> None:
        """Forget a supervisor that has ended."""
        self._exited.pop(pid, None)

    def leave(self) -> None:
        """Let the zygote end when its children have."""
        self._loop.remove_reader(self._sock.fileno())
        self._tell({"do": "leave"})
        self._sock.close()

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._sock.send(json.dumps(message).encode())
        except OSError:
            # It is gone, which is noticed by reading.
            pass

    def _receive(self) -> None:
        while True:
            try:
                data = self._sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._sock.fileno())
                for ended in (*self._exited.values(), *self._swept.values()):
                    # Nobody reports their ends any more; they end by themselves when they are hung up on.
                    if not ended.done():
                        ended.set_result(None)
                self._lost()
                return
            self._handle(json.loads(data))

    def _handle(self, message: dict[str, Any]) -> None:
        if "forked" in message:
            pid = message["forked"]
            self._exited[pid] = self._loop.create_future()
            forked = self._forked.pop(message["slot"])
            if not forked.done():
                forked.set_result(pid)
            return
        ended = self._swept.pop(message["swept"]) if "swept" in message else self._exited.get(message["exited"])
        if ended is not None and not ended.done():
            ended.set_result(None)


class SupervisorLink:
    """Exchanges frames with one supervisor."""

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[dict[str, Any], bytes | None], None],
        lost: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._received = received
        self._lost = lost
        self._decoder = FrameDecoder()
        self._waiting = bytearray()
        self._loop = asyncio.get_running_loop()
        self.descriptors: tuple[int, ...] = ()
        """What came with the first frame: a pidfd of the slot's PID 1, and files that tell its memory."""
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._receive_first)

    def send(self, message: dict[str, Any], body: bytes | None = None) -> None:
        """Send a frame now or as soon as the socket takes it.

        Raises:
            Refusal: It is too long, now that what the client left out was added.
        """
        if self._closed:
            return
        try:
            data = encode_frame(message, body)
        except FrameError as error:
            raise Refusal("bad_request", f"the parameters are too long: {error}") from None
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # Lost, which is noticed by reading.
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._sock.fileno(), self._flush)
        self._waiting += data

    def close(self) -> None:
        """Hang up: the supervisor ends."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()

    def kill_init(self) -> None:
        """Kill PID 1 of the slot, and with it everything in its pid namespace."""
        if self.descriptors:
            try:
                signal.pidfd_send_signal(self.descriptors[0], signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _flush(self) -> None:
        try:
            sent = self._sock.send(self._waiting)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._waiting)
        del self._waiting[:sent]
        if not self._waiting:
            self._loop.remove_writer(self._sock.fileno())

    def _receive_first(self) -> None:
        try:
            data, descriptors = receive_descriptors(self._sock, 65536)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        self.descriptors = tuple(descriptors)
        fileno = self._sock.fileno()
        self._take(data)
        if not self._closed and data:
            self._loop.add_reader(fileno, self._receive)

    def _receive(self) -> None:
        try:
            size = self._sock.recv_into(_buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._take(_buffer[:size])

    def _take(self, data: bytes | memoryview) -> None:
        if not data:
            self.close()
            self._lost()
            return
        for message, body in self._decoder.feed(data):
            self._received(message, body)

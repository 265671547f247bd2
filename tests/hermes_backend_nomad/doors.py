"""Further ways to a cluster: addresses that lead to it, until they are shut, fall silent, or swallow answers."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stand_ins.nomad.cluster import Cluster

__all__ = ["Door", "doors_to"]

PIECE = 1 << 16


class Door:
    """An address of its own, behind which an agent is, as if it were another one of the same cluster.

    Attributes:
        url: Where it is.
        refused: Requests with this in them end the connection, and lead nowhere.
        swallowed: Requests with this in them are carried out, and the connection ends instead of the answer.
        met: How many requests met with that.
    """

    def __init__(self, cluster: Cluster) -> None:
        where = urlsplit(cluster.address)
        self._behind = (where.hostname or "", where.port or 0)
        self._port = 0
        self._lock = Lock()
        self._ends: set[socket.socket] = set()
        self.refused: bytes | None = None
        self.swallowed: bytes | None = None
        self.met = 0
        self.open()
        self.url = f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Let everybody in, again."""
        self._silent = False
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        Thread(target=self._welcome, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections, and end those that there are."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes who accepts
        self._listener.close()
        with self._lock:
            for end in self._ends:
                _hang_up(end)

    def fall_silent(self) -> None:
        """Let everybody in, and say nothing any more."""
        self._silent = True

    def _welcome(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                inner, _ = listener.accept()
                Thread(target=self._relay, args=(inner,), daemon=True).start()

    def _relay(self, inner: socket.socket) -> None:
        with inner, suppress(OSError), socket.create_connection(self._behind) as outer:
            with self._lock:
                self._ends |= {inner, outer}
            swallowing = [False]
            answers = Thread(target=self._carry_answers, args=(outer, inner, swallowing), daemon=True)
            answers.start()
            while piece := inner.recv(PIECE):
                if self.refused is not None and self.refused in piece:
                    self.met += 1
                    break
                if self.swallowed is not None and self.swallowed in piece:
                    self.met += 1
                    swallowing[0] = True
                if not self._silent:
                    outer.sendall(piece)
            for end in (inner, outer):
                _hang_up(end)
            answers.join()
            with self._lock:
                self._ends -= {inner, outer}

    def _carry_answers(self, outer: socket.socket, inner: socket.socket, swallowing: list[bool]) -> None:
        with suppress(OSError):
            while piece := outer.recv(PIECE):
                if swallowing[0]:
                    break
                if not self._silent:
                    inner.sendall(piece)
        _hang_up(inner)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def doors_to(cluster: Cluster, count: int) -> Iterator[list[Door]]:
    """Make so many doors to a cluster."""
    with ExitStack() as stack:
        doors = [Door(cluster) for _ in range(count)]
        for door in doors:
            stack.callback(door.shut)
        yield doors

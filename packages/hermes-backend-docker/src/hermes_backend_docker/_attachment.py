"""The standard streams of a container, which live as long as whoever is attached to them."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from hermes_core.sandbox import SocketStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["STDERR", "STDOUT", "Attachment", "attach"]

STDOUT, STDERR = 1, 2
HEADER = struct.Struct(">BxxxI")
STREAMS = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}


class Attachment:
    """Carries a container's output here, and is its standard input.

    The container's standard input ends when this is closed, which the kernel does if this process is killed.

    Args:
        stream: The connection to the engine, taken over from the SDK.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._waiting = bytearray()

    async def aclose(self) -> None:
        """Let go of the container."""
        await self._stream.aclose()

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield pieces of standard output and standard error, each with which of them it is, until both have ended."""
        try:
            while True:
                while len(self._waiting) < HEADER.size or len(self._waiting) < HEADER.size + self._announced[1]:
                    self._waiting += await self._stream.receive()
                kind, size = self._announced
                piece = bytes(self._waiting[HEADER.size : HEADER.size + size])
                del self._waiting[: HEADER.size + size]
                yield kind, piece
        except (EndOfStream, BrokenResourceError, ClosedResourceError):
            return

    @property
    def _announced(self) -> tuple[int, int]:
        kind, size = HEADER.unpack_from(self._waiting)
        return kind, size


def attach(client: Any, container: str) -> Attachment:  # noqa: ANN401 - the SDK has no types
    """Attach to a container that was not started yet. Blocks."""
    given = client.attach_socket(container, params=STREAMS)
    return Attachment(take_over(given))


def take_over(given: Any) -> SocketStream:  # noqa: ANN401 - the SDK has no types
    """Return the connection below a socket of the SDK, which is closed."""
    sock = socket.socket(fileno=os.dup(given.fileno()))
    # A connection that was upgraded is of no further use to the pool that it came from.
    given._response.close()
    sock.setblocking(False)
    return SocketStream(sock)

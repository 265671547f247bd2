"""A byte stream over a unix socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import anyio
from anyio import BrokenResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["UnixStream", "connect_unix"]


class UnixStream(ByteStream):
    """A connected unix socket, with as few turns of the event loop per message as can be.

    anyio's own stream yields once before every `send` and `receive`, which a call would pay four times over, and its
    `receive` can leave an `InvalidStateError` behind in asyncio when it is cancelled while data arrives.

    Args:
        sock: A connected, non-blocking socket; owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for bytes; never returns none."""
        while True:
            try:
                await anyio.wait_readable(self._sock)
                data = self._sock.recv(max_bytes)
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                raise BrokenResourceError from error
            if not data:
                raise EndOfStream
            return data

    async def send(self, item: bytes) -> None:
        """Send all of it; does not yield as long as the socket takes it."""
        view = memoryview(item)
        while view:
            try:
                view = view[self._sock.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError as error:
                raise BrokenResourceError from error

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        """Close the socket; whoever waits on it is woken."""
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()
        await checkpoint()


def connect_unix(path: str | Path) -> UnixStream:
    """Connect to a unix socket on this machine, which never takes long.

    Raises:
        OSError: Nobody listens there, or too many are waiting.
    """
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return UnixStream(sock)

"""Byte streams over sockets: to a daemon on this machine, or on another."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import anyio
from anyio import BrokenResourceError, EndOfStream
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

__all__ = ["SocketStream", "connect_tcp", "connect_unix", "tls_obstacle"]

KEEPALIVE_IDLE_S = KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 20_000
"""A machine that vanished without a word is noticed in so long, whether something was to be sent to it or not."""


class SocketStream(ByteStream):
    """A connected socket, with as few turns of the event loop per message as can be.

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


def connect_unix(path: str | Path) -> SocketStream:
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
    return SocketStream(sock)


async def connect_tcp(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
) -> ByteStream:
    """Connect to a TCP port; a peer that vanishes without a word breaks the stream within some 20 s.

    Args:
        host: Name or address; of a name's addresses, the first that answers is taken.
        port: The port.
        tls: Speak TLS, by these certificates; None for plain TCP.
        server_name: What the peer's certificate must be for; `host` if None.

    Raises:
        OSError: Nobody listens there, or the name is unknown; `ssl.SSLError` if the peer's certificate is not the right
            one, or it speaks no TLS.
        EndOfStream: The peer ended the connection before it was secured.
        BrokenResourceError: The connection broke before it was secured.
    """
    stream = await _connect_to_any(host, port)
    if tls is None:
        return stream
    from anyio.streams.tls import TLSStream  # whoever speaks none need not wait for its import

    try:
        # The frames inside tell by themselves whether they are complete, so that no farewell is needed.
        return await TLSStream.wrap(
            stream, hostname=server_name or host, ssl_context=tls, server_side=False, standard_compatible=False
        )
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def tls_obstacle(error: BaseException) -> str | None:
    """Return why TLS cannot be spoken with a peer, however often it is tried; None if that is not what failed."""
    import ssl

    if not isinstance(error, ssl.SSLError) or isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return None
    return str(getattr(error, "verify_message", None) or error.reason or error)


async def _connect_to_any(host: str, port: int) -> SocketStream:
    failure: OSError | None = None
    for family, kind, protocol, _, address in await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            return SocketStream(await _connected(socket.socket(family, kind, protocol), address))
        except OSError as error:
            failure = error
    raise failure or OSError(f"{host} has no address")


async def _connected(sock: socket.socket, address: tuple[object, ...]) -> socket.socket:
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        try:
            sock.connect(address)
        except BlockingIOError:
            await anyio.wait_writable(sock)
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(number, f"{address[0]}:{address[1]}: {os.strerror(number)}")
    except BaseException:
        sock.close()
        raise
    return sock

from __future__ import annotations

import os
import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest
import trustme
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

from hermes_core.sandbox import connect_tcp, connect_unix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def echo(stream: ByteStream) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send(data)
        except (anyio.BrokenResourceError, ssl.SSLError):
            pass


@asynccontextmanager
async def echoing(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on the loopback; its port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        if tls is None:
            tasks.start_soon(listener.serve, echo)
        else:
            tasks.start_soon(TLSListener(listener, tls, standard_compatible=False).serve, echo)
        yield port
        tasks.cancel_scope.cancel()


def contexts(authority: trustme.CA, name: str = "sandbox.example") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the server and the client of mutual TLS speak by."""
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    server.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert(name).configure_cert(server)
    authority.issue_cert("client.example").configure_cert(client)
    for context in (server, client):
        authority.configure_trust(context)
    return server, client


async def exchange(stream: ByteStream, data: bytes) -> bytes:
    """Send and receive at once."""
    received = bytearray()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.send, data)
        while len(received) < len(data):
            received += await stream.receive()
    return bytes(received)


async def test_bytes_go_over_tcp() -> None:
    data = os.urandom(3_000_000)
    async with echoing() as port, await connect_tcp("localhost", port) as stream:
        assert await exchange(stream, data) == data
        await stream.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_bytes_go_over_tls() -> None:
    server, client = contexts(trustme.CA())
    data = os.urandom(3_000_000)
    async with (
        echoing(server) as port,
        await connect_tcp("127.0.0.1", port, tls=client, server_name="sandbox.example") as stream,
    ):
        assert await exchange(stream, data) == data


async def test_a_certificate_of_another_name_is_refused() -> None:
    server, client = contexts(trustme.CA(), "other.example")
    async with echoing(server) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect_tcp("127.0.0.1", port, tls=client, server_name="sandbox.example")


async def test_a_peer_that_speaks_no_tls_is_refused() -> None:
    _, client = contexts(trustme.CA())
    async with echoing() as port:
        with pytest.raises(ssl.SSLError):
            await connect_tcp("127.0.0.1", port, tls=client)


async def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1"):
            await connect_tcp("127.0.0.1", unused.getsockname()[1])
    with pytest.raises(FileNotFoundError):
        connect_unix(tmp_path / "nothing")


async def test_connecting_can_be_cancelled() -> None:
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filling in (first, second):  # the queue of a listener that never accepts
            filling.setblocking(False)
            filling.connect_ex(deaf.getsockname())
        with anyio.move_on_after(0.2) as scope:
            await connect_tcp(*deaf.getsockname())
        assert scope.cancelled_caught


async def test_a_machine_that_vanishes_is_noticed() -> None:
    async with echoing() as port:
        stream = await connect_tcp("127.0.0.1", port)
        sock = stream._sock  # type: ignore[attr-defined]
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 5, 3, 20_000]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await stream.aclose()

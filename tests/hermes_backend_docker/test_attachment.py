from __future__ import annotations

import socket

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_backend_docker._attachment import HEADER, Attachment
from hermes_core.sandbox import SocketStream

pytestmark = pytest.mark.anyio

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=20)


async def read(data: bytes, sizes: list[int]) -> list[tuple[int, bytes]]:
    """Return what an attachment makes of bytes that come in parts."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    attachment = Attachment(SocketStream(ours))
    found: list[tuple[int, bytes]] = []

    async def take() -> None:
        found.extend([piece async for piece in attachment.output()])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        with theirs:
            for size in sizes:
                theirs.sendall(data[:size])
                data = data[size:]
                await anyio.lowlevel.checkpoint()
            theirs.sendall(data)
    await attachment.aclose()
    return found


@given(pieces=PIECES, sizes=st.lists(st.integers(1, 50), max_size=20))
def test_pieces_come_whole_however_they_are_cut(pieces: list[tuple[int, bytes]], sizes: list[int]) -> None:
    data = b"".join(HEADER.pack(kind, len(piece)) + piece for kind, piece in pieces)
    assert anyio.run(read, data, sizes) == pieces


async def test_what_is_cut_off_is_no_piece() -> None:
    assert await read(HEADER.pack(1, 3) + b"one" + HEADER.pack(2, 10) + b"tw", []) == [(1, b"one")]


async def test_closing_ends_the_output() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    attachment = Attachment(SocketStream(ours))

    async def take() -> None:
        assert [piece async for piece in attachment.output()] == []

    with theirs, anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await anyio.sleep(0.05)
            await attachment.aclose()
        assert theirs.recv(1) == b""

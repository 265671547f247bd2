"""This process's standard streams, without holding up the event loop however slow the other end is."""

from __future__ import annotations

import os
import select
import stat

import anyio

__all__ = ["piped_input", "pour"]

READ_BYTES = 1 << 16


async def piped_input(descriptor: int = 0) -> bytes:
    """Read to its end what is piped or redirected into a descriptor; nothing if that is a terminal or a device."""
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)):
        return b""
    chunks: list[bytes] = []
    while True:
        if not stat.S_ISREG(mode):
            await anyio.wait_readable(descriptor)
        chunk = os.read(descriptor, READ_BYTES)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


async def pour(descriptor: int, data: bytes) -> None:
    """Write everything.

    Raises:
        BrokenPipeError: Nobody reads.
    """
    waits = _can_be_waited_for(descriptor)
    view = memoryview(data)
    while view:
        if waits:
            await anyio.wait_writable(descriptor)
        # So much never blocks once a pipe is writable.
        view = view[os.write(descriptor, view[: select.PIPE_BUF] if waits else view) :]


def _can_be_waited_for(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)

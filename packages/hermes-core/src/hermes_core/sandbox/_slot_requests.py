"""What all requests about one slot have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.sandbox._client import SandboxClient

__all__ = ["MAX_OUTPUT_CAP", "OUTPUT_CAP", "SlotRequests", "joined"]

OUTPUT_CAP = 1 << 20
"""Default number of bytes that are kept of each output stream."""

MAX_OUTPUT_CAP = 64 << 20
"""The highest number of bytes that can be kept of an output."""

JOIN_IN_THREAD_BYTES = 8 << 20


class SlotRequests:
    """Makes requests about one slot.

    Args:
        client: The client of its sandbox.
        index: The slot's number within the sandbox.
    """

    def __init__(self, client: SandboxClient, index: int) -> None:
        self._client = client
        self.index = index

    @property
    def sandbox(self) -> SandboxClient:
        """The client of its sandbox."""
        return self._client

    async def _ask(self, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        exchange = await self._client.request(method, params, slot=self.index)
        return cast("Mapping[str, Any]", exchange.result)


async def joined(chunks: list[bytes]) -> bytes:
    """Return a body of an answer whole."""
    if len(chunks) == 1:
        return chunks[0]
    if sum(map(len, chunks)) <= JOIN_IN_THREAD_BYTES:
        return b"".join(chunks)
    # Copying hundreds of megabytes would hold up everyone else; bytes.join lets go of the interpreter lock.
    return await to_thread.run_sync(b"".join, chunks)

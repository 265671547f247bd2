"""Says of a slow completion that it is still waited for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import anyio

from hermes_core.concurrency import background_tasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["with_heartbeat"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")


async def with_heartbeat(wait: Callable[[], Awaitable[T]], every_s: float, what: str) -> T:
    """Wait for something, and log a line as often as so many seconds pass.

    Args:
        wait: What is waited for.
        every_s: Seconds between two lines; 0 for none.
        what: What the line calls it.
    """
    if not every_s:
        return await wait()
    async with background_tasks() as tasks:
        tasks.start_soon(_beat, every_s, what)
        return await wait()


async def _beat(every_s: float, what: str) -> None:
    started = anyio.current_time()
    while True:
        await anyio.sleep(every_s)
        _logger.warning("still waiting for %s: %.0f s", what, anyio.current_time() - started)

"""Says of a slow completion that it is still waited for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import anyio

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
    results: list[T] = []
    errors: list[Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_beat, every_s, what)
        try:
            results.append(await wait())
        except Exception as error:
            errors.append(error)  # raised below: the task group would wrap it
        tasks.cancel_scope.cancel()
    if errors:
        raise errors[0]
    return results[0]


async def _beat(every_s: float, what: str) -> None:
    started = anyio.current_time()
    while True:
        await anyio.sleep(every_s)
        _logger.warning("still waiting for %s: %.0f s", what, anyio.current_time() - started)

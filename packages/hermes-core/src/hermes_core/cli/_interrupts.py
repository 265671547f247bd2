"""What a signal does to a command: the first ends it in order, the second at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, TypeVar

import anyio
import click

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["interruptible"]

EXIT_FORCED = 137
Returned = TypeVar("Returned")


async def interruptible(work: Callable[[], Awaitable[Returned]], said: str) -> Returned | None:
    """Do some work until it ends or SIGINT or SIGTERM comes; return what it returned, None when it was interrupted.

    Sandboxes end by themselves when this process is gone, so a second signal may end it at once.

    Args:
        work: What to do.
        said: What to tell at the first signal.
    """
    ended: list[Returned | Exception] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, said)
        try:
            ended.append(await work())
        except Exception as error:
            ended.append(error)  # kept apart from the task group, which would wrap it
        tasks.cancel_scope.cancel()
    if not ended:
        return None
    if isinstance(ended[0], Exception):
        raise ended[0]
    return ended[0]


async def _cancel_on_signal(scope: anyio.CancelScope, said: str) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if scope.cancel_called:
                os._exit(EXIT_FORCED)
            click.echo(f"\n{said} (once more to stop at once)", err=True)
            scope.cancel()

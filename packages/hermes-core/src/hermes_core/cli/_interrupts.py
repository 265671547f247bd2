"""What a signal does to a command: the first ends it in order, the second at once."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, TypeVar

import anyio
import click

from hermes_core.concurrency import background_tasks

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
    async with background_tasks() as tasks:
        tasks.start_soon(_cancel_on_signal, tasks.cancel_scope, said)
        return await work()
    return None


async def _cancel_on_signal(scope: anyio.CancelScope, said: str) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if scope.cancel_called:
                os._exit(EXIT_FORCED)
            click.echo(f"\n{said} (once more to stop at once)", err=True)
            scope.cancel()

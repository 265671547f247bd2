"""Tasks that live as long as what they work for."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

__all__ = ["background_tasks"]


@asynccontextmanager
async def background_tasks() -> AsyncGenerator[TaskGroup]:
    """A task group that is cancelled when its block ends, and does not wrap what the block raises.

    The block's exception is raised as it is, once the tasks have ended. A task that fails cancels the block and the
    other tasks. Whoever cancels the group's scope ends the block as well, and nothing is raised.

    Yields:
        The task group.

    Raises:
        ExceptionGroup: Of what tasks failed with, instead of what the block raised.
    """
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as error:
            failure = error  # kept apart from the task group, which would wrap it
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure

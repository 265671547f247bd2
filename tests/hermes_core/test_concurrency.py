from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from hermes_core.concurrency import background_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

pytestmark = pytest.mark.anyio


class Watch:
    """A task without end, and whether it was ended."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.ended = False
        self._failure = failure

    async def run(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.ended = True
            if self._failure is not None:
                raise self._failure


async def fail() -> None:
    await anyio.lowlevel.checkpoint()
    raise ValueError("of a task")


async def have(*some: Callable[[], Coroutine[Any, Any, None]], block: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have tasks in the background of a block."""
    async with background_tasks() as tasks:
        for each in some:
            tasks.start_soon(each)
        await block()


async def fail_later() -> None:
    await anyio.wait_all_tasks_blocked()
    raise KeyError("of the block")


async def test_tasks_end_with_the_block() -> None:
    watch = Watch()
    await have(watch.run, block=anyio.wait_all_tasks_blocked)
    assert watch.ended


async def test_what_the_block_raises_is_not_wrapped_and_comes_after_the_tasks() -> None:
    watch = Watch()
    with pytest.raises(KeyError, match="of the block"):
        await have(watch.run, block=fail_later)
    assert watch.ended


async def test_a_task_that_fails_cancels_the_block_and_the_others() -> None:
    watch = Watch()
    with pytest.raises(ExceptionGroup) as raised:
        await have(watch.run, fail, block=anyio.sleep_forever)
    assert [str(error) for error in raised.value.exceptions] == ["of a task"]
    assert watch.ended
    await anyio.lowlevel.checkpoint()  # nothing is cancelled any more


async def test_a_task_that_fails_as_it_ends_outdoes_the_block() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await have(Watch(ValueError("of a task")).run, block=fail_later)
    assert [str(error) for error in raised.value.exceptions] == ["of a task"]


async def test_the_groups_own_scope_ends_the_block_without_a_word() -> None:
    watch = Watch()
    async with background_tasks() as tasks:
        tasks.start_soon(watch.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        await anyio.sleep_forever()
    assert watch.ended
    await anyio.lowlevel.checkpoint()  # nothing is cancelled any more


async def test_a_block_that_is_cancelled_from_outside_ends_its_tasks() -> None:
    watch = Watch()

    async def cancel() -> None:
        await anyio.wait_all_tasks_blocked()
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        await have(watch.run, block=cancel)
    assert scope.cancelled_caught
    assert watch.ended

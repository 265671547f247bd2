from __future__ import annotations

import gc
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.exceptions import EnvironmentFault, LeaseStateError, UsageError
from hermes_core.runs import Resources, RolloutOptions, stream_rollouts
from hermes_core.testing import SumsEnvironment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from hermes_core.environments import Split, Task
    from hermes_core.runs import Work

pytestmark = pytest.mark.anyio


async def test_trajectories_come_as_they_end(resources: Resources, work: Callable[..., Work]) -> None:
    async with anyio.create_task_group() as owner:
        found = [(t.task_id, t.sample_index) async for t in stream_rollouts(owner, resources, work())]
    assert sorted(found) == [(f"train-0-{task}", sample) for task in range(4) for sample in range(2)]


async def test_tasks_are_pulled_as_they_are_needed(
    resources: Resources, work: Callable[..., Work], sums: SumsEnvironment
) -> None:
    async with anyio.create_task_group() as owner:
        async with aclosing(stream_rollouts(owner, resources, work(sums, tasks=None, concurrency=2))) as stream:
            async for _ in stream:
                await anyio.wait_all_tasks_blocked()
                break
    # One taken, at most two waiting to be taken, at most one more task in hand.
    assert sums.pulled <= 4


async def test_closing_early_stops_the_workers(
    resources: Resources, work: Callable[..., Work], sums: SumsEnvironment
) -> None:
    async with anyio.create_task_group() as owner:
        stream = stream_rollouts(owner, resources, work(sums, tasks=None))
        async for _ in stream:
            break
        await stream.aclose()
    # The owner's task group ended: nothing is left in it.


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio warns of every generator that is not closed, as it should
async def test_leaving_the_loop_stops_the_workers_too(resources: Resources, work: Callable[..., Work]) -> None:
    with anyio.fail_after(30):  # the owner ends when its workers do
        async with anyio.create_task_group() as owner:
            async for _ in stream_rollouts(owner, resources, work(tasks=None)):
                break
            gc.collect()


async def test_cancelling_the_consumer_stops_the_workers(resources: Resources, work: Callable[..., Work]) -> None:
    async with anyio.create_task_group() as owner:
        with anyio.move_on_after(0.1) as scope:
            async with aclosing(stream_rollouts(owner, resources, work(tasks=None))) as stream:
                async for _ in stream:
                    pass
        assert scope.cancelled_caught


async def test_an_owner_that_ends_first_is_told(resources: Resources, work: Callable[..., Work]) -> None:
    async with anyio.create_task_group() as owner:
        stream = stream_rollouts(owner, resources, work(tasks=None))
        await anext(stream)
        owner.cancel_scope.cancel()
    with pytest.raises(LeaseStateError):
        async for _ in stream:
            pass


async def test_what_cannot_be_done_is_raised_as_it_is(
    resources: Resources, work: Callable[..., Work], sums: SumsEnvironment
) -> None:
    async with anyio.create_task_group() as owner:
        options = RolloutOptions(toolsets=("both",))
        sums.toolsets = ("sums",)
        with pytest.raises(UsageError, match="does not have: nap"):
            async for _ in stream_rollouts(owner, resources, work(sums, options=options)):
                pass


async def test_an_environment_that_breaks_does_so_after_what_was_begun(
    resources: Resources, work: Callable[..., Work], sums: SumsEnvironment
) -> None:
    class Breaking(SumsEnvironment):
        async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
            async with aclosing(super().tasks(split, seed)) as tasks:
                async for task in tasks:
                    if task.task_id.endswith("-2"):
                        raise OSError("data set is gone")
                    yield task

    found = []
    async with anyio.create_task_group() as owner:
        with pytest.raises(EnvironmentFault, match="data set is gone"):  # noqa: PT012
            async for trajectory in stream_rollouts(owner, resources, work(Breaking())):
                found.append(trajectory)  # noqa: PERF401 - what came before the error counts
    assert len(found) == 4

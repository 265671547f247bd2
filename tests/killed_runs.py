"""Runs whose sandboxes are killed, or otherwise disturbed: nothing may be lost, nothing scored wrongly."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hermes_core import Hermes

__all__ = ["run_under", "run_under_kills"]

TASKS, GROUP = 20, 4
LONGEST_PAUSE_S = 0.8


async def run_under_kills(
    hermes: Hermes, kill_one: Callable[[Random], Awaitable[bool]], out: Path, *, kills: int = 20
) -> None:
    """Make one run after another until so many sandboxes were killed.

    Args:
        hermes: Has the backend.
        kill_one: Kills a sandbox that lives; false if there is none.
        out: Folder of the runs.
        kills: How many.
    """
    random = Random(0)

    async def kill() -> None:
        killed = 0
        while killed < kills:
            await anyio.sleep(random.uniform(0.05, LONGEST_PAUSE_S))
            killed += await kill_one(random)

    await run_under(hermes, kill, out)


async def run_under(hermes: Hermes, disturb: Callable[[], Awaitable[None]], out: Path) -> None:
    """Make one run after another until the disturbance is over, and one more.

    Args:
        hermes: Has the backend.
        disturb: Does it, and returns when it is over.
        out: Folder of the runs.
    """
    over, number = False, 0

    async def until_over() -> None:
        nonlocal over
        await disturb()
        over = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(until_over)
        while True:
            last = over
            await _run(hermes, out / str(number))
            number += 1
            if last:
                return


async def _run(hermes: Hermes, out: Path) -> None:
    """A run to its end: who was unlucky more often than a run retries is done by a resume, as people do it."""
    resume = False
    while True:
        run = await hermes.run(
            "arithmetic", model="oracle", tasks=TASKS, group_size=GROUP, concurrency=8, out=out, resume=resume
        )
        done = [trajectory async for trajectory in run.trajectories()]
        assert {(each.outcome, each.reward) for each in done} <= {("completed", 1.0)}
        assert {(each.outcome, each.reward) for each in [t async for t in run.failures()]} <= {("sandbox_error", None)}
        keys = {(each.task_id, each.sample_index) for each in done}
        assert len(keys) == len(done)
        if len(done) == TASKS * GROUP:
            return
        resume = True

"""Runs whose sandboxes are killed at random moments: nothing may be lost, nothing scored wrongly."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hermes_core import Hermes

__all__ = ["run_under_kills"]

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
    random, killed, number = Random(0), 0, 0

    async def kill() -> None:
        nonlocal killed
        while killed < kills:
            await anyio.sleep(random.uniform(0.05, LONGEST_PAUSE_S))
            killed += await kill_one(random)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        while killed < kills:
            await _run(hermes, out / str(number))
            number += 1


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

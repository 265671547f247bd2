"""Scoring that an agent cannot turn into an infrastructure fault."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_core.environments import Score
from hermes_core.exceptions import EnvironmentFault, HermesError, SandboxError, UsageError
from hermes_core.models import Message
from hermes_core.slots import LeaseRequest
from hermes_core.trajectory import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.environments import Environment, Task
    from hermes_core.execution import Slot
    from hermes_core.runs._resources import Resources
    from hermes_core.trajectory import Trajectory

__all__ = ["leased_slot", "one_line", "score_trajectory", "set_up"]


@asynccontextmanager
async def leased_slot(resources: Resources, task: Task, trajectory_id: str) -> AsyncIterator[Slot | None]:
    """The task's slot, released on exit whatever happens; None for a task without a sandbox.

    Raises:
        UsageError: The task needs a sandbox, and there is no backend.
        SandboxError: No slot can be had.
    """
    if task.sandbox is None:
        yield None
        return
    if resources.acquire is None:
        raise UsageError(f"task {task.task_id!r} needs a sandbox, and no backend is configured")
    wanted = task.sandbox
    slot = await resources.acquire(
        LeaseRequest(
            profile=wanted.profile,
            image=wanted.image,
            network=wanted.network,
            limits=wanted.limits,
            trajectory_id=trajectory_id,
            # Rollouts queue for slots by design; a pool that can make none says so by itself.
            wait_s=None,
            recordings=resources.recordings,
        )
    )
    resources.leasing.worked = True
    try:
        yield slot
    finally:
        await slot.release()  # cancelled or not, it is given back at once; only the waiting can be cut short


async def set_up(environment: Environment, task: Task, slot: Slot | None) -> object:
    """Let the environment prepare the slot.

    Raises:
        SandboxError: The sandbox is lost.
        EnvironmentFault: The environment's code failed, or broke the slot: no agent has touched it yet.
    """
    try:
        return await environment.setup(task, slot)
    except (SandboxError, UsageError, EnvironmentFault):
        raise
    except Exception as error:
        raise EnvironmentFault(f"setup of task {task.task_id!r} failed: {one_line(error)}") from error


async def score_trajectory(
    resources: Resources, environment: Environment, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object
) -> Score:
    """Score what the agent left.

    A scorer that fails on it gives 0, if it can score an agent that did nothing on a fresh slot: otherwise an agent
    that breaks the scorer would buy itself another try.

    Raises:
        SandboxError: The sandbox is lost.
        EnvironmentFault: The scorer fails on a fresh slot too.
    """
    try:
        return _checked(await environment.score(task, slot, trajectory, setup))
    except (SandboxError, UsageError):
        raise
    except Exception as error:
        fault = one_line(error)
    if slot is not None:
        # Held while another is waited for, it could starve everyone: with a full pool, all would wait for each other.
        await slot.release()
    await _score_idle_agent(resources, environment, task, trajectory, fault)
    return Score(0.0, details={"score_error": fault})


async def _score_idle_agent(
    resources: Resources, environment: Environment, task: Task, trajectory: Trajectory, fault: str
) -> None:
    opening = tuple(m for m in trajectory.messages if m.role in ("system", "user"))
    silence = Message("assistant", "")
    idle = replace(
        trajectory,
        outcome="completed",
        messages=(*opening, silence),
        steps=(Step(silence, finish_reason="stop"),),
        segments=(),
        error=None,
    )
    async with leased_slot(resources, task, f"{trajectory.task_id}-check-{id(trajectory):x}") as slot:
        setup = await set_up(environment, task, slot)
        try:
            _checked(await environment.score(task, slot, idle, setup))
        except (SandboxError, UsageError):
            raise
        except Exception as error:
            raise EnvironmentFault(
                f"scoring of task {task.task_id!r} failed: {fault}; on a fresh slot: {one_line(error)}"
            ) from error


def _checked(score: Score) -> Score:
    if not isinstance(score, Score):
        raise TypeError(f"score() returned {type(score).__name__}, not a Score")
    for name, value in (("reward", score.reward), *score.metrics.items()):
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name} is {value!r}, not a finite number")
    return score


def one_line(error: Exception) -> str:
    """What an error says, in at most 500 characters of one line."""
    text = error.message if isinstance(error, HermesError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]

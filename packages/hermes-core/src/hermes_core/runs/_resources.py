"""What rollouts are made with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_core.observers import ObserverHub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from hermes_core.agent import AgentLimits
    from hermes_core.execution import BatchExecutor, Slot, Tool
    from hermes_core.models import Sampling
    from hermes_core.observers import Interceptor
    from hermes_core.slots import LeaseRequest

__all__ = ["Leasing", "Resources", "RolloutOptions"]


@dataclass(slots=True)
class Leasing:
    """Whether any rollout has had a slot so far: without one, what stands in the way is the run's trouble."""

    worked: bool = False


@dataclass(frozen=True, slots=True)
class Resources:
    """What many rollouts share. Everything in it is started already.

    Attributes:
        executor: Runs tool calls.
        tools: From the names of toolsets to the tools that may be used, by name.
        acquire: Leases a slot; None when there is no sandbox backend. A rollout awaits `slot.release()`.
        backend: The sandbox backend's name, for the record.
        observers: Who watches.
        interceptors: Who may replace calls and results, in order.
        recordings: Folder for the recordings of terminals; None keeps them in memory.
        leasing: What is known of `acquire` so far.
    """

    executor: BatchExecutor
    tools: Callable[[Sequence[str]], Mapping[str, Tool]]
    acquire: Callable[[LeaseRequest], Awaitable[Slot]] | None = None
    backend: str | None = None
    observers: ObserverHub = field(default_factory=ObserverHub)
    interceptors: tuple[Interceptor, ...] = ()
    recordings: Path | None = None
    leasing: Leasing = field(default_factory=Leasing)


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """What a run decides for all its rollouts. None leaves a setting to the task, or to its default.

    Attributes:
        toolsets: Narrows the environment's toolsets; never widens them.
        limits: Instead of the task's own limits; or some fields, over the task's own.
        sampling: Likewise.
        retries: How often a rollout that infrastructure spoiled is tried again.
        retry_delay_s: Seconds before the first retry; doubled for each further one.
        deadline_s: Seconds of wall time for one attempt, leases and the model included; beyond it is `cancelled`.
    """

    toolsets: tuple[str, ...] | None = None
    limits: AgentLimits | Mapping[str, object] | None = None
    sampling: Sampling | Mapping[str, object] | None = None
    retries: int = 2
    retry_delay_s: float = 0.2
    deadline_s: float | None = None

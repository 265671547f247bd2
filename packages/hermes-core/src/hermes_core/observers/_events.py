"""What observers are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue, ToolCall, ToolResult
    from hermes_core.trajectory import Trajectory

__all__ = [
    "Event",
    "RunFinished",
    "RunStarted",
    "SandboxFinished",
    "SandboxStarted",
    "ToolCallFinished",
    "ToolCallStarted",
    "TrajectoryFinished",
    "TrajectoryStarted",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins or is resumed.

    Attributes:
        run_id: Unique.
        config: What is written into `run.json`.
        total: Trajectories that the run will have, or None when the environment decides.
        done: Trajectories that an earlier, interrupted start of the run finished.
    """

    run_id: str
    config: Mapping[str, JsonValue]
    total: int | None
    done: int = 0


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run ends; `statistics` is what is written into `statistics.json`."""

    run_id: str
    statistics: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class TrajectoryStarted:
    """An agent starts on a task; once per attempt."""

    trajectory_id: str
    task_id: str
    sample_index: int
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class TrajectoryFinished:
    """A trajectory ended for good: scored, or given up (`reward` is None)."""

    trajectory_id: str
    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    """A call is handed to the executor."""

    trajectory_id: str
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ToolCallFinished:
    """A call was answered."""

    trajectory_id: str
    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True)
class SandboxStarted:
    """A sandbox is up."""

    name: str
    backend: str


@dataclass(frozen=True, slots=True)
class SandboxFinished:
    """A sandbox was stopped, or is lost for the given reason."""

    name: str
    backend: str
    reason: str | None = None


Event = (
    RunStarted
    | RunFinished
    | TrajectoryStarted
    | TrajectoryFinished
    | ToolCallStarted
    | ToolCallFinished
    | SandboxStarted
    | SandboxFinished
)
"""Anything that observers are told."""

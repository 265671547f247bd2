"""The contract of an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.observers._events import (
        RunFinished,
        RunStarted,
        SandboxFinished,
        SandboxStarted,
        ToolCallFinished,
        ToolCallStarted,
        TrajectoryFinished,
        TrajectoryStarted,
    )

__all__ = ["Observer"]


class Observer:
    """Watches. Subclass it and override what is of interest.

    The methods of one observer are called one after the other, in the order of the events, by a task of its own. An
    error is logged and forgotten; an observer that falls behind loses events, which is counted and logged.
    """

    async def run_started(self, event: RunStarted) -> None:
        """A run begins."""

    async def run_finished(self, event: RunFinished) -> None:
        """A run ends."""

    async def trajectory_started(self, event: TrajectoryStarted) -> None:
        """An agent starts on a task."""

    async def trajectory_finished(self, event: TrajectoryFinished) -> None:
        """A trajectory ended for good."""

    async def tool_call_started(self, event: ToolCallStarted) -> None:
        """A call is handed to the executor."""

    async def tool_call_finished(self, event: ToolCallFinished) -> None:
        """A call was answered."""

    async def sandbox_started(self, event: SandboxStarted) -> None:
        """A sandbox is up."""

    async def sandbox_finished(self, event: SandboxFinished) -> None:
        """A sandbox is gone."""

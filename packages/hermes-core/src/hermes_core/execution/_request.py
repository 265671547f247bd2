"""The contract of the batch executor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from hermes_core.execution._call import ToolCall, ToolResult
    from hermes_core.execution._slot import Slot
    from hermes_core.execution._tool import Tool

__all__ = ["BatchExecutor", "CallRequest", "ExecutorConfig", "ExecutorStatus"]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """One tool call on its way to being run.

    Attributes:
        call: What the model asked for.
        tools: The enabled tools by name; a name that is not among them is answered as an error result.
        slot: The trajectory's slot, or None when it has none.
        trajectory_id: Who calls, or None.
        task_id: Its task, or None.
        timeout_s: Overrides the tool's own timeout in seconds, or None.
    """

    call: ToolCall
    tools: Mapping[str, Tool]
    slot: Slot | None = None
    trajectory_id: str | None = None
    task_id: str | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExecutorConfig:
    """Bounds of an executor.

    Attributes:
        max_in_flight: Most calls that run at once; further ones wait in order.
    """

    max_in_flight: int = 1024


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """Counts since the start.

    Attributes:
        requests: Calls taken.
        errors: Calls whose result was an error.
        in_flight: Calls running now.
        queued: Calls waiting for a place.
        latency_ms: Histogram: upper bound in milliseconds to count.
        batch_size: Histogram: how many requests travelled in one write to a sandbox, to count.
    """

    requests: int = 0
    errors: int = 0
    in_flight: int = 0
    queued: int = 0
    latency_ms: Mapping[float, int] = field(default_factory=dict)
    batch_size: Mapping[int, int] = field(default_factory=dict)


class BatchExecutor(Protocol):
    """Runs tool calls of many trajectories; an async context manager. Made as `executor_class(config)`."""

    def __init__(self, config: ExecutorConfig) -> None: ...

    async def execute(self, requests: Sequence[CallRequest]) -> list[ToolResult]:
        """Run calls and return their results in order.

        Calls of one slot run one after the other in the given order; others run concurrently. An exception of a tool
        becomes an error result.

        Raises:
            SandboxError: The sandbox of a slot is lost.
            SlotDeadError: A slot died while its sandbox lives on.
        """

    def status(self) -> ExecutorStatus:
        """Counts since the start."""

    async def __aenter__(self) -> Self:
        """Start what it needs."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for nothing; cancel what runs."""

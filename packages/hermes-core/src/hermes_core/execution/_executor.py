"""The default batch executor."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Self

import anyio

from hermes_core.exceptions import HermesError, LeaseStateError, SandboxError, SlotDeadError
from hermes_core.execution._call import ToolResult
from hermes_core.execution._gate import Gate
from hermes_core.execution._request import ExecutorConfig, ExecutorStatus
from hermes_core.execution._slot import HeldSlot
from hermes_core.execution._tool import ToolContext

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hermes_core.execution._request import CallRequest
    from hermes_core.execution._slot import Slot
    from hermes_core.execution._tool import Tool

__all__ = ["DefaultBatchExecutor"]

LATENCY_BOUNDS_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 60_000, 600_000, inf)

_FATAL = (SandboxError, SlotDeadError)


class DefaultBatchExecutor:
    """Runs each call in its caller's task; what belongs together in time meets in the sandbox client's next write.

    Args:
        config: Its bounds.
    """

    def __init__(self, config: ExecutorConfig | None = None) -> None:
        self._gate = Gate((config or ExecutorConfig()).max_in_flight)
        self._running: set[anyio.CancelScope] = set()
        self._closed = False
        self._requests = self._errors = self._queued = 0
        self._latency = [0] * len(LATENCY_BOUNDS_MS)
        self._batch_sizes: dict[int, Counter[int]] = {}

    async def __aenter__(self) -> Self:
        """Nothing to start."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Cancel what runs; its callers get a `LeaseStateError`."""
        self._closed = True
        for scope in self._running:
            scope.cancel()

    def status(self) -> ExecutorStatus:
        """Counts since the start."""
        return ExecutorStatus(
            requests=self._requests,
            errors=self._errors,
            in_flight=len(self._running),
            queued=self._queued,
            latency_ms={bound: n for bound, n in zip(LATENCY_BOUNDS_MS, self._latency, strict=True) if n},
            batch_size=dict(sorted(sum(self._batch_sizes.values(), Counter()).items())),
        )

    async def execute(self, requests: Sequence[CallRequest]) -> list[ToolResult]:
        """Run calls and return their results in order; see `BatchExecutor.execute`.

        When a slot or sandbox is lost, the calls of other slots are still run to their end before that is raised.
        """
        if self._closed:
            raise LeaseStateError("the batch executor is closed")
        if len(requests) == 1:
            return [await self._execute(requests[0])]
        chains: dict[object, list[int]] = {}
        for index, request in enumerate(requests):
            tool = request.tools.get(request.call.name)
            in_slot = request.slot is not None and tool is not None and tool.needs_slot
            chains.setdefault(request.slot if in_slot else index, []).append(index)
        results: dict[int, ToolResult] = {}
        failures: list[HermesError] = []

        async def run_chain(indices: list[int]) -> None:
            try:
                for index in indices:
                    results[index] = await self._execute(requests[index])
            except HermesError as error:
                failures.append(error)

        async with anyio.create_task_group() as tasks:
            for indices in chains.values():
                tasks.start_soon(run_chain, indices)
        if failures:
            raise failures[0]
        return [results[index] for index in range(len(requests))]

    async def _execute(self, request: CallRequest) -> ToolResult:
        self._requests += 1
        begin = time.perf_counter()
        result = await self._route(request)
        self._latency[bisect_left(LATENCY_BOUNDS_MS, (time.perf_counter() - begin) * 1000)] += 1
        if not result.success:
            self._errors += 1
        return result

    async def _route(self, request: CallRequest) -> ToolResult:
        call, slot = request.call, request.slot
        tool = request.tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(request.tools)) or "none"
            return _failed(request, f"unknown tool {call.name!r}; known tools: {known}")
        try:
            reason = tool.unavailable()
        except Exception as error:
            reason = _one_line(error)
        if reason is not None:
            return _failed(request, f"tool {call.name!r} is unavailable: {reason}")
        if not tool.needs_slot:
            return await self._admit(request, tool, None)
        if slot is None:
            return _failed(request, f"tool {call.name!r} needs a sandbox, and there is none here")
        if isinstance(slot, HeldSlot):
            # A tool that calls tools is inside the turn and the bound already: waiting for either would be for ever.
            return await self._run(request, tool, slot)
        histogram = slot.lease.client.sandbox.batch_sizes
        self._batch_sizes[id(histogram)] = histogram
        self._queued += 1
        try:
            held = await slot.take_turn()
        finally:
            self._queued -= 1
        try:
            return await self._admit(request, tool, held)
        finally:
            held.end_turn()

    async def _admit(self, request: CallRequest, tool: Tool, slot: Slot | None) -> ToolResult:
        self._queued += 1
        try:
            await self._gate.enter()
        finally:
            self._queued -= 1
        try:
            return await self._run(request, tool, slot)
        finally:
            self._gate.leave()

    async def _run(self, request: CallRequest, tool: Tool, slot: Slot | None) -> ToolResult:
        """Run a call now; its time starts here."""
        call = request.call
        timeout_s = tool.timeout_s if request.timeout_s is None else request.timeout_s
        context = ToolContext(request.trajectory_id, request.task_id, call.id, timeout_s)
        begin = time.perf_counter()
        output, error = None, None
        with anyio.move_on_after(timeout_s) as scope:
            self._running.add(scope)
            try:
                output = await tool.run(call.arguments, context, slot)
            except _FATAL:
                raise
            except Exception as raised:
                if (fatal := _fatal_inside(raised)) is not None:
                    raise fatal from raised
                error = _one_line(raised)
            finally:
                self._running.discard(scope)
        if scope.cancelled_caught:
            if self._closed:
                raise LeaseStateError("the batch executor was closed")
            error = f"timed out after {timeout_s:g} s"
        duration_s = round(time.perf_counter() - begin, 6)
        return ToolResult(call.id, error is None, output, error, {"duration_s": duration_s})


def _failed(request: CallRequest, error: str) -> ToolResult:
    return ToolResult(request.call.id, success=False, error=error, metadata={"duration_s": 0.0})


def _one_line(error: Exception) -> str:
    if isinstance(error, HermesError):
        return " ".join(error.message.split()) or type(error).__name__
    detail = " ".join(str(error).split())
    return f"{type(error).__name__}: {detail}" if detail else type(error).__name__


def _fatal_inside(error: Exception) -> Exception | None:
    """The first fatal error within the exception group of a tool that runs several things at once."""
    if not isinstance(error, ExceptionGroup):
        return None
    for inner in error.exceptions:
        fatal = inner if isinstance(inner, _FATAL) else _fatal_inside(inner)
        if fatal is not None:
            return fatal
    return None

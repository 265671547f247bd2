"""Runs the tool calls of one trajectory: interceptors around the executor, time counted, observers told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from hermes_core.exceptions import HermesError, PluginError, SandboxError
from hermes_core.execution import CallRequest, Slot, ToolResult
from hermes_core.observers import ToolCallFinished, ToolCallStarted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from hermes_core.execution import BatchExecutor, JsonValue, Tool, ToolCall
    from hermes_core.observers import Interceptor, ObserverHub

__all__ = ["CallRunner", "SlotSource"]

SlotSource = Slot | Callable[[], Awaitable[Slot]] | None
"""A slot; or what leases one, called by the first call of a sandbox tool; or none."""


class CallRunner:
    """Runs the calls of one trajectory and counts the seconds that they take."""

    def __init__(
        self,
        executor: BatchExecutor,
        tools: Mapping[str, Tool],
        *,
        slot: SlotSource,
        interceptors: Sequence[Interceptor],
        observers: ObserverHub | None,
        trajectory_id: str,
        task_id: str,
    ) -> None:
        self._executor = executor
        self._tools = tools
        self._slot = slot
        self._interceptors = tuple(interceptors)
        self._observers = observers
        self._trajectory_id = trajectory_id
        self._task_id = task_id
        self.spent_s = 0.0
        """Seconds of tool execution so far."""

    async def run(self, calls: Sequence[ToolCall], results: list[ToolResult], *, budget_s: float | None) -> None:
        """Run calls and append their results in order, so that what was done before an error is not lost.

        Args:
            calls: The calls of one turn.
            results: Where results go.
            budget_s: What `spent_s` may reach; calls are then run one by one, as what is left is known only then.

        Raises:
            SandboxError: The slot's sandbox is lost.
            SlotDeadError: The slot died.
            PluginError: An interceptor failed.
        """
        if budget_s is None:
            results += await self._run_batch(calls, None)
            return
        for call in calls:
            left = budget_s - self.spent_s
            if left <= 0:
                results.append(ToolResult(call.id, success=False, error="not run: the time for tools is used up"))
            else:
                results += await self._run_batch([call], self._timeout(call, left))

    def _timeout(self, call: ToolCall, left: float) -> float | None:
        """What is left of the budget, where the call could take longer than that; None leaves it to the tool."""
        tool = self._tools.get(call.name)
        asked = call.arguments.get("timeout")
        longest = max(tool.timeout_s if tool else 0.0, asked if isinstance(asked, int | float) else 0.0)
        return left if left < longest else None

    async def _run_batch(self, calls: Sequence[ToolCall], timeout_s: float | None) -> list[ToolResult]:
        if not calls:
            return []
        run = [await self._before(call) for call in calls]
        slot = await self._slot_for(run)
        requests = [
            CallRequest(
                call,
                self._tools,
                slot=slot,
                trajectory_id=self._trajectory_id,
                task_id=self._task_id,
                timeout_s=timeout_s,
            )
            for call in run
        ]
        for call in run:
            self._tell(ToolCallStarted(self._trajectory_id, call))
        started = time.monotonic()
        try:
            results = await self._executor.execute(requests)
        except HermesError:
            raise
        except Exception as error:
            raise SandboxError(f"the executor failed: {type(error).__name__}: {error}") from error
        finally:
            elapsed = time.monotonic() - started
            self.spent_s += elapsed
        # Waiting in queues is not the tools' doing: where every result says how long it ran, that is what counts.
        self.spent_s += min(0.0, _ran_s(results, otherwise=elapsed) - elapsed)
        seen = [await self._after(*each) for each in zip(calls, run, results, strict=True)]
        for call, result in zip(run, seen, strict=True):
            self._tell(ToolCallFinished(self._trajectory_id, call, result))
        return seen

    async def _slot_for(self, calls: Sequence[ToolCall]) -> Slot | None:
        if callable(self._slot):
            if not any(tool.needs_slot for call in calls if (tool := self._tools.get(call.name))):
                return None
            self._slot = await self._slot()
        return self._slot

    async def _before(self, call: ToolCall) -> ToolCall:
        for interceptor in self._interceptors:
            with _guarded(interceptor):
                changed = await interceptor.before_call(call, trajectory_id=self._trajectory_id, task_id=self._task_id)
            call = replace(changed, id=call.id)
        return call

    async def _after(self, asked: ToolCall, run: ToolCall, result: ToolResult) -> ToolResult:
        replaced: list[JsonValue] = []
        if run != asked:
            replaced.append({"ran": {"name": run.name, "arguments": dict(run.arguments)}})
        for interceptor in reversed(self._interceptors):
            with _guarded(interceptor):
                changed = await interceptor.after_call(
                    run, result, trajectory_id=self._trajectory_id, task_id=self._task_id
                )
            if changed != result:
                was: dict[str, JsonValue] = {"success": result.success, "output": result.output, "error": result.error}
                replaced.append({"by": interceptor.name, "result": was})
            result = replace(changed, call_id=asked.id)
        if not replaced:
            return result
        return replace(result, metadata={**result.metadata, "intercepted": replaced})

    def _tell(self, event: ToolCallStarted | ToolCallFinished) -> None:
        if self._observers is not None:
            self._observers.post(event)


@contextmanager
def _guarded(interceptor: Interceptor) -> Iterator[None]:
    try:
        yield
    except HermesError:
        raise
    except Exception as error:
        name = interceptor.name or type(interceptor).__name__
        raise PluginError(f"interceptor {name} failed: {type(error).__name__}: {error}") from error


def _ran_s(results: Sequence[ToolResult], *, otherwise: float) -> float:
    seconds = [result.metadata.get("duration_s") for result in results]
    known = [each for each in seconds if isinstance(each, int | float)]
    return sum(known) if len(known) == len(seconds) else otherwise

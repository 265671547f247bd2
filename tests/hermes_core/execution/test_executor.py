from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.exceptions import LeaseStateError, SandboxLostError, ToolError
from hermes_core.execution import (
    CallRequest,
    DefaultBatchExecutor,
    ExecutorConfig,
    JsonValue,
    Slot,
    ToolCall,
    ToolContext,
    ToolDefinition,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

pytestmark = pytest.mark.anyio


@dataclass
class Plain:
    """An external tool around a function."""

    function: Callable[[Mapping[str, JsonValue]], Awaitable[JsonValue]]
    name: str = "plain"
    needs_slot: bool = False
    timeout_s: float = 5.0
    missing: str | None = None
    contexts: list[ToolContext] = field(default_factory=list)

    @property
    def definition(self) -> ToolDefinition:
        return ToolDefinition(self.name, "", {})

    def unavailable(self) -> str | None:
        return self.missing

    async def run(self, arguments: Mapping[str, JsonValue], context: ToolContext, slot: Slot | None) -> JsonValue:
        self.contexts.append(context)
        return await self.function(arguments)


async def echo(arguments: Mapping[str, JsonValue]) -> JsonValue:
    return arguments.get("text")


def request(tool: Plain, timeout_s: float | None = None, /, **arguments: JsonValue) -> CallRequest:
    return CallRequest(ToolCall(tool.name, arguments), {tool.name: tool}, trajectory_id="t", timeout_s=timeout_s)


async def test_results_come_back_in_order() -> None:
    async def wait(arguments: Mapping[str, JsonValue]) -> JsonValue:
        await anyio.sleep(float(str(arguments["s"])))
        return arguments["s"]

    tool = Plain(wait)
    requests = [request(tool, s=0.03), request(tool, s=0.01), request(tool, s=0.02)]
    with anyio.fail_after(30):
        results = await DefaultBatchExecutor().execute(requests)
    assert [result.output for result in results] == [0.03, 0.01, 0.02]
    assert [result.call_id for result in results] == [asked.call.id for asked in requests]


async def test_an_unknown_tool_is_told_which_are_known() -> None:
    asked = CallRequest(ToolCall("nope"), {"b": Plain(echo), "a": Plain(echo)})
    (result,) = await DefaultBatchExecutor().execute([asked])
    assert not result.success
    assert result.error == "unknown tool 'nope'; known tools: a, b"


async def test_an_unavailable_tool_says_why() -> None:
    (result,) = await DefaultBatchExecutor().execute([request(Plain(echo, missing="no key"))])
    assert result.error == "tool 'plain' is unavailable: no key"


async def test_a_sandbox_tool_without_a_slot_is_an_error_result() -> None:
    (result,) = await DefaultBatchExecutor().execute([request(Plain(echo, needs_slot=True))])
    assert "needs a sandbox" in (result.error or "")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ToolError("two\nlines"), "two lines"),
        (ValueError("bad"), "ValueError: bad"),
        (KeyError(), "KeyError"),
        (TimeoutError(), "TimeoutError"),
        (ExceptionGroup("several", [ValueError("bad")]), "ExceptionGroup: several (1 sub-exception)"),
    ],
)
async def test_an_exception_is_an_error_result_of_one_line(raised: Exception, expected: str) -> None:
    async def fail(arguments: Mapping[str, JsonValue]) -> JsonValue:
        raise raised

    (result,) = await DefaultBatchExecutor().execute([request(Plain(fail))])
    assert (result.success, result.error, result.output) == (False, expected, None)
    assert "duration_s" in result.metadata


@pytest.mark.parametrize("raised", [SandboxLostError("gone"), ExceptionGroup("", [SandboxLostError("gone")])])
async def test_a_lost_sandbox_is_raised_after_the_other_calls_have_ended(raised: Exception) -> None:
    async def fail(arguments: Mapping[str, JsonValue]) -> JsonValue:
        raise raised

    finished = []

    async def finish(arguments: Mapping[str, JsonValue]) -> JsonValue:
        await anyio.sleep(0.01)
        finished.append(True)
        return None

    with pytest.raises(SandboxLostError, match="gone"):
        await DefaultBatchExecutor().execute([request(Plain(fail)), request(Plain(finish))])
    assert finished == [True]


async def test_a_call_times_out_by_its_own_or_the_requests_limit() -> None:
    async def hang(arguments: Mapping[str, JsonValue]) -> JsonValue:
        await anyio.sleep(60)
        return None

    tool = Plain(hang, timeout_s=0.02)
    executor = DefaultBatchExecutor()
    own, given = await executor.execute([request(tool), request(tool, 0.03)])
    assert (own.error, given.error) == ("timed out after 0.02 s", "timed out after 0.03 s")
    assert sorted(context.timeout_s for context in tool.contexts) == [0.02, 0.03]
    assert executor.status().errors == 2


async def test_time_starts_when_the_call_runs_and_places_are_given_in_order() -> None:
    order = []

    async def work(arguments: Mapping[str, JsonValue]) -> JsonValue:
        order.append(arguments["n"])
        await anyio.sleep(0.02)
        return None

    tool = Plain(work, timeout_s=0.1)  # all eight take longer than that
    executor = DefaultBatchExecutor(ExecutorConfig(max_in_flight=1))
    async with anyio.create_task_group() as tasks:
        for n in range(8):
            tasks.start_soon(executor.execute, [request(tool, n=n)])
            await anyio.wait_all_tasks_blocked()  # trio starts tasks in any order
    assert order == list(range(8))
    status = executor.status()
    assert (status.requests, status.errors, status.in_flight, status.queued) == (8, 0, 0, 0)
    assert sum(status.latency_ms.values()) == 8


async def test_closing_cancels_what_runs() -> None:
    async def hang(arguments: Mapping[str, JsonValue]) -> JsonValue:
        await anyio.sleep(60)
        return None

    async def call() -> None:
        with pytest.raises(LeaseStateError, match="closed"):
            await executor.execute([request(Plain(hang, timeout_s=60.0))])

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks, DefaultBatchExecutor() as executor:
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
    with pytest.raises(LeaseStateError):
        await executor.execute([request(Plain(echo))])


async def test_cancelling_leaves_no_place_taken() -> None:
    async def hang(arguments: Mapping[str, JsonValue]) -> JsonValue:
        await anyio.sleep(60)
        return None

    executor = DefaultBatchExecutor(ExecutorConfig(max_in_flight=1))
    with anyio.move_on_after(0.02):
        await executor.execute([request(Plain(hang)), request(Plain(hang))])
    (result,) = await executor.execute([request(Plain(echo), text="hi")])
    assert result.output == "hi"

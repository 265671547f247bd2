from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hermes_core.agent import Agent, AgentLimits, LazyConversation
from hermes_core.default_plugins.models import ScriptedModel
from hermes_core.default_plugins.models.scripted import ScriptedCall, ScriptedConfig, ScriptedTurn
from hermes_core.exceptions import (
    ContextExceededError,
    ModelError,
    PluginError,
    SandboxLostError,
    SlotDeadError,
    TokenDataError,
    UsageError,
)
from hermes_core.execution import DefaultBatchExecutor, ToolCall, ToolResult
from hermes_core.models import AssistantTurn, ConversationStart, Message, TurnTokens
from hermes_core.observers import Interceptor, Observer, ObserverHub
from hermes_core.tools import tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.agent import AgentRun
    from hermes_core.execution import BatchExecutor, CallRequest
    from hermes_core.models import Conversation
    from hermes_core.observers import ToolCallFinished, ToolCallStarted

pytestmark = pytest.mark.anyio


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(timeout_s=60)
async def wait(seconds: float) -> str:
    """Wait."""
    await anyio.sleep(seconds)
    return "waited"


@tool
async def lose() -> str:
    """Lose the sandbox."""
    raise SandboxLostError("the node is gone")


@tool
async def burst() -> str:
    """Break a limit of the slot."""
    raise SlotDeadError("the slot ran out of memory", limit="memory")


@tool
async def misuse() -> str:
    """Fail like a tool."""
    raise ValueError("not today")


TOOLS = {each.definition.name: each for each in (add, wait, lose, burst, misuse)}
ADD = ScriptedCall(name="add", arguments={"a": 2, "b": 3}, id="c1")


def calls(*each: ScriptedCall, **turn: object) -> ScriptedTurn:
    return ScriptedTurn.model_validate({"tool_calls": each, "finish_reason": "tool_calls", **turn})


def script(*turns: ScriptedTurn | str, **config: object) -> Conversation:
    model = ScriptedModel(ScriptedConfig.model_validate({"turns": turns, **config}))
    return model.conversation(ConversationStart("t"))


def agent(
    *turns: ScriptedTurn | str,
    executor: BatchExecutor | None = None,
    config: dict[str, object] | None = None,
    **settings: object,
) -> Agent:
    talk = script(*turns, **(config or {}))
    return Agent(talk, executor or DefaultBatchExecutor(), TOOLS, **settings)  # type: ignore[arg-type]


async def ran(*turns: ScriptedTurn | str, **settings: Any) -> AgentRun:  # noqa: ANN401
    return await agent(*turns, **settings).run("Go")


async def test_calls_are_answered_until_the_final_answer() -> None:
    run = await ran(calls(ADD, content="Adding."), "It is 5.")
    assert (run.outcome, run.error, run.final_response) == ("completed", None, "It is 5.")
    assert [m.role for m in run.messages] == ["user", "assistant", "tool", "assistant"]
    answer = run.messages[2]
    assert (answer.tool_call_id, answer.name) == ("c1", "add")
    assert json.loads(answer.content) == {"success": True, "output": 5, "uniq_id": "c1"}
    assert [len(step.results) for step in run.steps] == [1, 0]
    assert run.steps[0].calls == (ToolCall("add", {"a": 2, "b": 3}, "c1"),)


async def test_the_system_prompt_opens_the_conversation_once() -> None:
    talker = agent("Hello.", "Again.", system_prompt="Be kind.")
    assert await talker.chat("Hi") == "Hello."
    assert await talker.chat("Hi again") == "Again."
    assert [m.role for m in talker.messages] == ["system", "user", "assistant", "user", "assistant"]
    own = agent("ok", system_prompt="Be kind.")
    await own.run([Message("system", "Be brief."), Message("user", "Hi")])
    assert [m.content for m in own.messages] == ["Be brief.", "Hi", "ok"]


async def test_a_second_run_tells_only_of_its_own_steps() -> None:
    talker = agent(calls(ADD), "5", "bye")
    await talker.run("one")
    run = await talker.run("two")
    assert len(run.steps) == 1
    assert len(talker.steps) == 3


async def test_a_single_step() -> None:
    stepper = agent(calls(ADD), "5")
    step = await stepper.step()
    assert step.results[0].output == 5
    assert (await stepper.step()).message.content == "5"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (ScriptedCall(name="nonsense"), "unknown tool 'nonsense'"),
        (ScriptedCall(name="add", arguments={"a": 1}), "invalid arguments"),
        (ScriptedCall(name="misuse"), "not today"),
    ],
)
async def test_a_failed_call_is_told_to_the_model(call: ScriptedCall, error: str) -> None:
    run = await ran(calls(call), "sorry")
    assert run.outcome == "completed"
    answer = json.loads(run.messages[2].content)
    assert answer["success"] is False
    assert error in answer["error"]


async def test_malformed_calls_are_answered_and_retried() -> None:
    run = await ran(
        "<tool_call>{oops}</tool_call>",
        ScriptedTurn(content='<tool_call>{"name": "add", "arg', finish_reason="length"),
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 1}}</tool_call><tool_call>',
        "2",
        config={"tool_call_format": "hermes"},
    )
    assert run.outcome == "completed"
    assert [len(step.malformed) for step in run.steps] == [1, 1, 1, 0]
    assert [m.role for m in run.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    answer = run.messages[2]
    assert answer.tool_call_id is None
    assert "{oops}" in json.loads(answer.content)["error"]


@pytest.mark.parametrize("content", ["<think>hm</think>", "<think>hm", "hm</think>\n"])
async def test_a_turn_of_thinking_alone_is_answered(content: str) -> None:
    run = await ran(content, "<think>well</think>42")
    assert [m.role for m in run.messages] == ["user", "assistant", "user", "assistant"]
    assert run.outcome == "completed"


async def test_the_step_limit_keeps_the_last_turn() -> None:
    run = await ran(calls(ADD), config={"repeat_last": True}, limits=AgentLimits(max_steps=3))
    assert run.outcome == "max_steps"
    assert len(run.steps) == 3
    assert len(run.steps[-1].results) == 1


class Counting:
    """Calls a tool in turns of ten tokens, or of what is left of the budget."""

    def __init__(self, *, answers_after: int = 99) -> None:
        self.asked: list[int | None] = []
        self._answers_after = answers_after

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        self.asked.append(max_tokens)
        count = 10 if max_tokens is None else min(10, max_tokens)
        cut = count < 10
        done = len(self.asked) > self._answers_after
        call = () if cut or done else (ToolCall("add", {"a": 1, "b": 2}),)
        tokens = TurnTokens((1,) * len(self.asked), (2,) * count, (-0.5,) * count)
        return AssistantTurn("5", tool_calls=call, finish_reason="length" if cut else "stop", tokens=tokens)


@pytest.mark.parametrize(
    ("budget", "asked", "outcome"),
    [
        (None, [None, None, None], "completed"),
        (31, [31, 21, 11], "completed"),
        (30, [30, 20, 10], "completed"),  # the answer was not cut
        (29, [29, 19, 9], "max_tokens"),  # it was, and is none
        (20, [20, 10], "max_tokens"),
    ],
)
async def test_the_token_budget_holds_for_all_turns_together(
    budget: int | None, asked: list[int | None], outcome: str
) -> None:
    model = Counting(answers_after=2)
    run = await Agent(model, DefaultBatchExecutor(), TOOLS, limits=AgentLimits(max_tokens=budget)).run("Go")
    assert (model.asked, run.outcome) == (asked, outcome)
    assert sum(step.sampled_tokens for step in run.steps) == (30 if budget is None else min(30, budget))


async def test_only_tool_execution_counts_towards_the_time_for_tools() -> None:
    slow_model = await ran(calls(ADD, delay_s=0.2), "5", limits=AgentLimits(tool_time_s=0.1))
    assert slow_model.outcome == "completed"
    nap = ScriptedCall(name="wait", arguments={"seconds": 30})
    with anyio.fail_after(30):
        run = await ran(calls(nap, ADD), "never said", limits=AgentLimits(tool_time_s=0.1))
    assert run.outcome == "timed_out"
    assert len(run.steps) == 1
    first, second = run.steps[0].results
    assert "timed out" in str(first.error)
    assert "used up" in str(second.error)
    assert run.tool_time_s == pytest.approx(0.1, abs=0.09)


async def test_an_exceeded_context_keeps_what_was_done() -> None:
    run = await ran(calls(ADD), ScriptedTurn(fails="context_exceeded"))
    assert run.outcome == "context_exceeded"
    assert isinstance(run.error, ContextExceededError)
    assert len(run.steps) == 1


@pytest.mark.parametrize(
    ("name", "outcome"), [("lose", "sandbox_error"), ("burst", "agent_error")], ids=["sandbox lost", "slot dead"]
)
async def test_an_error_keeps_what_was_done_before(name: str, outcome: str) -> None:
    run = await ran(calls(ADD), calls(ScriptedCall(name=name)), "never said")
    assert run.outcome == outcome
    assert len(run.steps) == 2
    assert run.steps[0].results[0].output == 5
    assert run.messages[-1] is run.steps[1].message


async def test_a_broken_model_or_executor_is_infrastructure() -> None:
    class Broken:
        async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
            raise KeyError("choices")

    run = await Agent(Broken(), DefaultBatchExecutor(), TOOLS).run("Go")
    assert run.outcome == "model_error"
    assert isinstance(run.error, ModelError)
    with pytest.raises(ModelError):
        await Agent(Broken(), DefaultBatchExecutor(), TOOLS).chat("Go")

    class BrokenExecutor(DefaultBatchExecutor):
        async def execute(self, requests: Sequence[CallRequest]) -> list[ToolResult]:
            raise OSError("no more files")

    assert (await ran(calls(ADD), executor=BrokenExecutor())).outcome == "sandbox_error"


async def test_wrong_use_is_no_outcome() -> None:
    class Unusable:
        async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
            raise UsageError("no such thing")

    with pytest.raises(UsageError):
        await Agent(Unusable(), DefaultBatchExecutor(), TOOLS).run("Go")


async def test_tokens_become_segments() -> None:
    def tokens(*prompt: int) -> dict[str, Any]:
        return {"prompt_ids": prompt, "completion_ids": (8, 9), "logprobs": (-0.1, -0.2)}

    run = await ran(
        calls(ADD, tokens=tokens(1, 2)),
        ScriptedTurn(content="5", tokens=tokens(1, 2, 8, 9, 3)),
    )
    (segment,) = run.segments
    assert segment.ids == (1, 2, 8, 9, 3, 8, 9)
    assert segment.mask == (0, 0, 1, 1, 0, 1, 1)
    broken = await ran(calls(ADD, tokens=tokens()))
    assert broken.outcome == "model_error"
    assert isinstance(broken.error, TokenDataError)


async def test_ids_are_distinct_within_a_turn() -> None:
    run = await ran(calls(ADD, ADD), "done")
    ids = [call.id for call in run.steps[0].calls]
    assert len(set(ids)) == 2
    assert [m.tool_call_id for m in run.messages[2:4]] == ids


async def test_a_model_is_started_by_the_first_turn() -> None:
    opened: list[str] = []

    async def open_conversation() -> Conversation:
        opened.append("now")
        return script("a", "b")

    talker = Agent(LazyConversation(open_conversation), DefaultBatchExecutor(), TOOLS)
    assert not opened
    assert [await talker.chat("x"), await talker.chat("y")] == ["a", "b"]
    assert opened == ["now"]


class Doubling(Interceptor):
    name = "doubling"

    async def before_call(self, call: ToolCall, *, trajectory_id: str, task_id: str) -> ToolCall:
        return ToolCall(call.name, {key: 2 * value for key, value in call.arguments.items()})  # type: ignore[operator]


class Shouting(Interceptor):
    name = "shouting"

    async def after_call(self, call: ToolCall, result: ToolResult, *, trajectory_id: str, task_id: str) -> ToolResult:
        return ToolResult(call.id, True, f"{result.output}!")


async def test_interceptors_replace_calls_and_results_and_both_are_recorded() -> None:
    run = await ran(calls(ADD), "10!", interceptors=(Doubling(), Shouting()))
    (result,) = run.steps[0].results
    assert (result.call_id, result.output) == ("c1", "10!")
    assert run.steps[0].calls[0].arguments == {"a": 2, "b": 3}
    assert result.metadata["intercepted"] == [
        {"ran": {"name": "add", "arguments": {"a": 4, "b": 6}}},
        {"by": "shouting", "result": {"success": True, "output": 10, "error": None}},
    ]


async def test_a_guard_that_fails_lets_no_call_pass() -> None:
    class Failing(Interceptor):
        async def before_call(self, call: ToolCall, *, trajectory_id: str, task_id: str) -> ToolCall:
            raise RuntimeError("no idea")

    run = await ran(calls(ADD), "5", interceptors=(Failing(),))
    assert run.outcome == "environment_error"
    assert isinstance(run.error, PluginError)
    assert run.steps[0].results == ()


async def test_observers_see_calls() -> None:
    class Watching(Observer):
        seen: list[tuple[str, str]]

        def __init__(self) -> None:
            self.seen = []

        async def tool_call_started(self, event: ToolCallStarted) -> None:
            self.seen.append(("started", event.call.id))

        async def tool_call_finished(self, event: ToolCallFinished) -> None:
            self.seen.append((str(event.result.output), event.trajectory_id))

    watching = Watching()
    async with ObserverHub([watching]) as hub:
        await ran(calls(ADD), "5", observers=hub, trajectory_id="t7")
    assert watching.seen == [("started", "c1"), ("5", "t7")]


async def test_cancelling_keeps_what_was_done() -> None:
    sleeper = agent(calls(ADD), calls(ScriptedCall(name="wait", arguments={"seconds": 30})), "never said")
    with anyio.move_on_after(0.2) as scope:
        await sleeper.run("Go")
    assert scope.cancelled_caught
    assert len(sleeper.steps) == 2
    assert sleeper.steps[0].results[0].output == 5

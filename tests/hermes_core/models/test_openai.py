from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.default_plugins.models.openai import OpenAIConfig, OpenAIModel
from hermes_core.default_plugins.models.openai._config import endpoints_of
from hermes_core.exceptions import (
    ConfigError,
    ContextExceededError,
    ModelResponseError,
    ModelUnreachableError,
)
from hermes_core.execution import ToolCall, ToolDefinition
from hermes_core.models import ConversationStart, Message, Sampling
from hermes_core.testing import ChatAnswer, FakeChatServer, completion

if TYPE_CHECKING:
    from hermes_core.models import AssistantTurn

pytestmark = pytest.mark.anyio

TERMINAL = ToolDefinition("terminal", "Run a command", {"type": "object", "properties": {"command": {}}})
CALL = {"name": "terminal", "arguments": '{"command": "ls"}'}
QUESTION = (Message("user", "What is here?"),)


async def said(
    server: FakeChatServer,
    *,
    messages: tuple[Message, ...] = QUESTION,
    sampling: Sampling | None = None,
    **config: object,
) -> AssistantTurn:
    async with OpenAIModel(OpenAIConfig.model_validate({"base_url": server.url, **config})) as model:
        start = ConversationStart("t", tools=(TERMINAL,), sampling=sampling or Sampling())
        return await model.conversation(start).respond(messages)


async def test_structured_calls_go_both_ways() -> None:
    answer = completion("Looking.", tool_calls=[CALL, CALL], finish_reason="tool_calls")
    history = (
        *QUESTION,
        Message("assistant", "", tool_calls=(ToolCall("terminal", {"command": "pwd"}, "call_9"),)),
        Message("tool", '{"success": true}', tool_call_id="call_9", name="terminal"),
        Message("tool", '{"success": false}'),
    )
    with FakeChatServer([answer]) as server:
        turn = await said(server, messages=history, sampling=Sampling(0.2, max_tokens=5, stop=("x",), seed=1))
    assert turn.content == "Looking."
    assert [(c.name, c.arguments) for c in turn.tool_calls] == [("terminal", {"command": "ls"})] * 2
    assert turn.finish_reason == "tool_calls"
    assert turn.usage is not None
    assert (turn.usage.prompt_tokens, turn.usage.completion_tokens) == (7, 3)
    assert turn.metadata["id"] == "chatcmpl-1"
    assert turn.metadata["system_fingerprint"] == "fp_1"
    (request,) = server.requests
    assert request["model"] == "fake-model"
    assert request["tools"][0]["function"]["name"] == "terminal"
    assert (request["temperature"], request["max_tokens"], request["stop"], request["seed"]) == (0.2, 5, ["x"], 1)
    asked, called, answered, malformed = request["messages"]
    assert asked == {"role": "user", "content": "What is here?"}
    assert json.loads(called["tool_calls"][0]["function"]["arguments"]) == {"command": "pwd"}
    assert answered == {"role": "tool", "tool_call_id": "call_9", "content": '{"success": true}'}
    assert malformed["role"] == "user"


async def test_a_turn_is_cut_at_what_is_left_of_a_budget() -> None:
    uncounted = completion("So.")
    del uncounted["usage"]
    with FakeChatServer([completion("So."), completion("So."), uncounted, uncounted]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url)) as model:
            talk = model.conversation(ConversationStart("t", sampling=Sampling(max_tokens=8)))
            await talk.respond(QUESTION, max_tokens=5)
            await talk.respond(QUESTION, max_tokens=20)
            await talk.respond(QUESTION)
            with pytest.raises(ModelResponseError, match="does not say how many tokens"):
                await talk.respond(QUESTION, max_tokens=5)
    assert [request["max_tokens"] for request in server.requests] == [5, 8, 8, 5]


async def test_text_calls_go_both_ways() -> None:
    answer = completion('On it.\n<tool_call>{"name": "terminal", "arguments": {"command": "ls"}}</tool_call>')
    history = (
        Message("system", "Be brief."),
        *QUESTION,
        Message("assistant", "", tool_calls=(ToolCall("terminal", {"command": "pwd"}, "call_9"),)),
        Message("tool", '{"success": true}', tool_call_id="call_9"),
    )
    with FakeChatServer([answer]) as server:
        turn = await said(server, messages=history, tool_call_format="hermes")
    assert turn.content == "On it."
    assert [(c.name, c.arguments) for c in turn.tool_calls] == [("terminal", {"command": "ls"})]
    (request,) = server.requests
    assert "tools" not in request
    system, _, called, results = request["messages"]
    assert "<tools>" in system["content"]
    assert system["content"].endswith("Be brief.")
    assert "<tool_call>" in called["content"]
    assert results == {"role": "user", "content": '<tool_response>\n{"success": true}\n</tool_response>'}


async def test_a_given_system_prompt_replaces_that_of_the_format() -> None:
    asked = (Message("system", "You look."), *QUESTION)
    with FakeChatServer([completion("So.")]) as server:
        await said(server, messages=asked, tool_call_format="hermes", system_prompt="Call tools.")
        with pytest.raises(ConfigError, match="no prompt that system_prompt could replace"):
            await said(server, messages=asked, system_prompt="Call tools.")
    (request,) = server.requests
    assert request["messages"][0] == {"role": "system", "content": "Call tools.\n\nYou look."}


@pytest.mark.parametrize("arguments", ['{"command": ', "[1]", '{"a": NaN}', '{"a": 1} x', '{"a": "\\ud800"}'])
async def test_arguments_that_are_no_json_object_are_malformed(arguments: str) -> None:
    answer = completion(tool_calls=[{"name": "terminal", "arguments": arguments}, CALL])
    with FakeChatServer([answer]) as server:
        turn = await said(server)
    assert len(turn.tool_calls) == len(turn.malformed) == 1
    assert "terminal" in turn.malformed[0].text


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_is_kept_apart_and_stands_in_for_empty_content(field: str) -> None:
    answers = [completion("Four.", more={field: "2+2"}), completion("", more={field: "Four."})]
    with FakeChatServer(answers) as server:
        first, second = await said(server), await said(server)
    assert (first.content, first.reasoning) == ("Four.", "2+2")
    assert (second.content, second.reasoning) == ("Four.", None)


@pytest.mark.parametrize(
    "fault",
    [
        ChatAnswer("slow down", status=429, headers={"Retry-After": "0.01"}),
        ChatAnswer("oops", status=503, headers={"Retry-After": "0.01"}),
        ChatAnswer("<html>bad gateway</html>", status=502, headers={"retry-after-ms": "10"}),
        ChatAnswer("<html>welcome</html>"),
        ChatAnswer('{"choices": [{"mess'),
        ChatAnswer({"error": {"message": "overloaded", "code": 503}}),
        ChatAnswer(drop=True),
        ChatAnswer(completion("half"), drop=True),
    ],
    ids=["429", "503", "502", "html", "truncated", "error-in-200", "dropped", "dropped-midway"],
)
async def test_what_passes_is_tried_again(fault: ChatAnswer) -> None:
    with FakeChatServer([fault, completion("fine")]) as server:
        assert (await said(server)).content == "fine"
        assert len(server.requests) == 2


async def test_retries_end() -> None:
    with FakeChatServer([ChatAnswer("busy " * 2000, status=503, headers={"Retry-After": "0"})]) as server:
        with pytest.raises(ModelResponseError, match="503: busy") as caught:
            await said(server, max_retries=2)
        assert len(server.requests) == 3
    assert 9_000 < len(caught.value.message) < 21_000


async def test_a_wrong_request_is_not_tried_again() -> None:
    with FakeChatServer([ChatAnswer({"error": {"message": "no such field"}}, status=400)]) as server:
        with pytest.raises(ModelResponseError, match=r"400.*no such field"):
            await said(server)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
        (400, "the request exceeds the available context size, try increasing it"),
        (413, "prompt is too long: 9000 tokens > 8192 maximum"),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        (500, "context_length_exceeded"),
    ],
)
async def test_a_conversation_that_does_not_fit(status: int, text: str) -> None:
    with FakeChatServer([ChatAnswer({"error": {"message": text}}, status=status)]) as server:
        with pytest.raises(ContextExceededError):
            await said(server)
        assert len(server.requests) == 1


async def test_garbage_about_contexts_is_no_exceeded_context() -> None:
    with FakeChatServer([ChatAnswer('{"choices": [{"message": "context length')]) as server:
        with pytest.raises(ModelResponseError):
            await said(server, max_retries=0)


async def test_a_completion_that_hangs_is_cut_off() -> None:
    with FakeChatServer([ChatAnswer(hang=True)]) as server:
        with anyio.fail_after(30), pytest.raises(ModelResponseError, match="in time"):
            await said(server, timeout_s=0.2)


async def test_the_number_of_requests_at_once_is_bounded() -> None:
    with FakeChatServer([completion("ok")]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url, max_concurrency=2)) as model:
            async with anyio.create_task_group() as tasks:
                for _ in range(12):
                    tasks.start_soon(model.conversation(ConversationStart("t")).respond, QUESTION)
        assert len(server.requests) == 12
        assert server.busiest <= 2


async def test_a_wrong_key_says_so_and_shows_no_key() -> None:
    with FakeChatServer(key="right") as server:
        with pytest.raises(ModelResponseError, match="refuses the key") as caught:
            await said(server, api_key="sk-wrong-and-secret")
    assert (
        "sk-wrong"
        not in f"{caught.value!r}{caught.value.__cause__}{OpenAIConfig.model_validate({'api_key': 'sk-wrong'})!r}"
    )


async def test_a_key_that_the_endpoint_repeats_is_not_shown() -> None:
    with FakeChatServer([ChatAnswer("bad key sk-secret", status=400)]) as server:
        with pytest.raises(ModelResponseError, match=r"bad key \*\*\*"):
            await said(server, api_key="sk-secret")


async def test_nothing_answers() -> None:
    with FakeChatServer() as server:
        url = server.url
    with pytest.raises(ModelUnreachableError, match="nothing answers at") as caught:
        async with OpenAIModel(OpenAIConfig(base_url=url)):
            pass
    assert caught.value.hint


async def test_no_model_is_named_and_none_listed() -> None:
    with FakeChatServer(models=()) as server:
        with pytest.raises(ConfigError, match="no model is named"):
            await said(server)


async def test_an_unknown_format_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="unknown tool-call format 'nonsense'"):
        async with OpenAIModel(OpenAIConfig(tool_call_format="nonsense")):
            pass


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("http://h:1/v1", "http://h:1/v1"),
        ("http://h:1/v1/", "http://h:1/v1"),
        ("h:1", "http://h:1/v1"),
        ("https://openrouter.ai/api/v1", "https://openrouter.ai/api/v1"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai"),
    ],
)
def test_base_urls(given: str, expected: str) -> None:
    assert endpoints_of(OpenAIConfig(base_url=given))[0].base_url == expected

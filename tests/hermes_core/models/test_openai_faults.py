"""Streams, slow answers, dumps: what endpoints do, and what is kept of it."""

from __future__ import annotations

import json
import logging
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx
import openai
import pytest

from hermes_core.default_plugins.models.openai import OpenAIConfig, OpenAIModel
from hermes_core.default_plugins.models.openai._errors import retry_delay
from hermes_core.exceptions import ConfigError, ContextExceededError, ModelResponseError
from hermes_core.execution import ToolDefinition
from hermes_core.models import ConversationStart, Message
from hermes_core.testing import ChatAnswer, FakeChatServer, completion, streamed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from hermes_core.models import AssistantTurn

pytestmark = pytest.mark.anyio

TERMINAL = ToolDefinition("terminal", "Run a command", {"type": "object", "properties": {"command": {}}})
CALLS = [
    {"name": "terminal", "arguments": '{"command": "ls -la"}'},
    {"name": "terminal", "arguments": '{"command": "pwd"}'},
]
QUESTION = (Message("user", "What is here?"),)


async def said(server: FakeChatServer, **config: object) -> AssistantTurn:
    async with OpenAIModel(OpenAIConfig.model_validate({"base_url": server.url, **config})) as model:
        return await model.conversation(ConversationStart("t", tools=(TERMINAL,))).respond(QUESTION)


# Streaming


@pytest.mark.parametrize(
    "body",
    [
        completion("Looking, déjà vu 🙂", tool_calls=CALLS, finish_reason="tool_calls"),
        completion("Four.", more={"reasoning_content": "2+2 is four"}),
        completion("", more={"reasoning": "Four."}),
        completion("cut", finish_reason="length"),
    ],
    ids=["calls", "reasoning", "only-reasoning", "length"],
)
async def test_a_streamed_turn_is_the_same_turn(body: Mapping[str, Any]) -> None:
    with FakeChatServer([streamed(body)]) as server, FakeChatServer([body]) as other:
        turn, whole = await said(server, stream=True), await said(other)
        assert server.requests[0]["stream"] is True
        assert "stream" not in other.requests[0]
    assert turn == whole


async def test_a_streamed_text_call_is_found() -> None:
    body = completion('On it.\n<tool_call>{"name": "terminal", "arguments": {"command": "ls"}}</tool_call>')
    with FakeChatServer([streamed(body)]) as server:
        turn = await said(server, stream=True, tool_call_format="hermes")
    assert [(call.name, call.arguments) for call in turn.tool_calls] == [("terminal", {"command": "ls"})]


async def test_calls_that_are_badly_numbered_are_told_apart() -> None:
    deltas = [
        {"tool_calls": [{"index": 0, "id": f"c{n}", "function": {"name": "terminal", "arguments": arguments}}]}
        for n, arguments in enumerate(['{"command": "a"}', '{"command": "b"}'])
    ]
    events = [{"choices": [{"delta": delta}]} for delta in deltas] + [{"choices": [{"finish_reason": "tool_calls"}]}]
    text = "".join(f"data:{json.dumps(event)}\n\n" for event in events)
    with FakeChatServer([ChatAnswer(text, headers={"Content-Type": "text/event-stream"})]) as server:
        turn = await said(server, stream=True)
    assert [(call.id, call.arguments) for call in turn.tool_calls] == [
        ("c0", {"command": "a"}),
        ("c1", {"command": "b"}),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        streamed(completion("half of it"), drop=True),
        streamed(completion("half of it"), ends=False),
        ChatAnswer('data: {"error": {"message": "overloaded"}}\n\n', headers={"Content-Type": "text/event-stream"}),
        ChatAnswer("data: [DONE]\n\n", headers={"Content-Type": "text/event-stream"}),
        ChatAnswer('data: {"choices": [{"del\n\n', headers={"Content-Type": "text/event-stream"}),
        ChatAnswer("<html>welcome</html>", headers={"Content-Type": "text/html"}),
        ChatAnswer("busy", status=429, headers={"Retry-After": "0.01"}),
    ],
    ids=["dropped", "no-end", "error", "empty", "garbage", "html", "429"],
)
async def test_a_stream_that_breaks_is_tried_again(fault: ChatAnswer) -> None:
    whole = completion("all of it")
    with FakeChatServer([fault, streamed(whole)]) as server:
        assert (await said(server, stream=True)).content == "all of it"
        assert len(server.requests) == 2


async def test_a_stream_that_is_refused_says_why() -> None:
    text = "This model's maximum context length is 4096 tokens"
    with FakeChatServer([ChatAnswer({"error": {"message": text}}, status=400)]) as server:
        with pytest.raises(ContextExceededError):
            await said(server, stream=True)


async def test_an_endpoint_that_does_not_stream_is_understood() -> None:
    with FakeChatServer([completion("in one piece")]) as server:
        assert (await said(server, stream=True)).content == "in one piece"


# Waiting


def refused(headers: Mapping[str, str], status: int = 429) -> openai.APIStatusError:
    answer = httpx.Response(status, headers=headers, text="busy", request=httpx.Request("POST", "http://h/v1"))
    return openai.RateLimitError("busy", response=answer, body=None)  # type: ignore[arg-type,unused-ignore]


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 7.2),
        ({"Retry-After": "1.5"}, 1.5, 1.7),
        ({"retry-after-ms": "250"}, 0.25, 0.4),
        ({"Retry-After": formatdate(time.time() + 3600, usegmt=True)}, 60, 60.2),
        ({"Retry-After": formatdate(time.time() - 3600, usegmt=True)}, 0, 0.2),
        ({"Retry-After": "100000"}, 60, 60.2),
        ({"Retry-After": "nan"}, 0.25, 0.5),
        ({"Retry-After": "soon"}, 0.25, 0.5),
        ({}, 0.25, 0.5),
    ],
)
def test_the_wait_that_an_endpoint_asks_for(headers: Mapping[str, str], least: float, most: float) -> None:
    delay = retry_delay(refused(headers), 0)
    assert delay is not None
    assert least <= delay <= most


def test_a_date_not_far_ahead_is_waited_for() -> None:
    delay = retry_delay(refused({"Retry-After": formatdate(time.time() + 30, usegmt=True)}), 0)
    assert delay is not None
    assert 20 < delay < 31


async def test_a_burst_of_refusals_passes() -> None:
    burst = [ChatAnswer("slow down", status=429, headers={"Retry-After": "0.02"})] * 12
    with FakeChatServer([*burst, completion("ok")]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url, max_retries=12)) as model:
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(model.conversation(ConversationStart("t")).respond, QUESTION)
        assert len(server.requests) == 18


async def test_a_hanging_completion_is_tried_once_more() -> None:
    with FakeChatServer([ChatAnswer(hang=True), completion("late")]) as server:
        assert (await said(server, timeout_s=0.3)).content == "late"
    with FakeChatServer([ChatAnswer(hang=True)]) as server:
        with pytest.raises(ModelResponseError, match="did not answer in time"):
            await said(server, timeout_s=0.2, stream=True)
        assert len(server.requests) == 2


async def test_a_slow_completion_is_said_to_be_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with FakeChatServer([ChatAnswer(hang=True)]) as server:
        with pytest.raises(ModelResponseError, match="in time"):
            await said(server, timeout_s=1.0, heartbeat_s=0.1)
        assert f"still waiting for fake-model at {server.url}/v1: " in caplog.text
        caplog.clear()
        with pytest.raises(ModelResponseError, match="in time"):
            await said(server, timeout_s=0.3, heartbeat_s=0)
        assert "still waiting" not in caplog.text


# Dumps

SECRET = "sk-secret-marker"


async def test_requests_and_answers_are_written_down_without_the_key(tmp_path: Path) -> None:
    faults = [ChatAnswer(f"no {SECRET}", status=503, headers={"Retry-After": "0"}), ChatAnswer(drop=True)]
    with FakeChatServer([*faults, completion(f"fine {SECRET}")], key=SECRET) as server:
        turn = await said(server, api_key=SECRET, debug_dir=tmp_path / "a" / "b", extra_body={"top_k": 5})
        assert turn.content == "fine ***"
        paths = sorted((tmp_path / "a" / "b").iterdir())
        records = [json.loads(path.read_text()) for path in paths]
        assert [record["status"] for record in records] == [503, None, 200]
        assert "no ***" in records[0]["answer"]
        assert records[1]["error"]
        assert json.loads(records[2]["answer"])["choices"][0]["message"]["content"] == "fine ***"
        assert not any(SECRET in path.read_text() for path in paths)
        assert not any(path.stat().st_mode & 0o077 for path in paths)
        # What was sent is what is written, and it can be sent again.
        assert [record["body"] for record in records] == server.requests
        assert records[2]["body"]["top_k"] == 5
        async with httpx.AsyncClient() as client:
            again = await client.request(
                records[2]["method"],
                records[2]["url"],
                json=records[2]["body"],
                headers={"Authorization": f"Bearer {SECRET}"},
            )
        assert again.json()["choices"]
        assert server.requests[-1] == server.requests[-2]


async def test_a_dump_is_bounded_and_says_so(tmp_path: Path) -> None:
    with FakeChatServer([completion("y" * 300_000)]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url, debug_dir=tmp_path / "dumps")) as model:
            await model.conversation(ConversationStart("t")).respond([Message("user", "x" * 300_000)])
    (path,) = (tmp_path / "dumps").iterdir()
    record = json.loads(path.read_text())
    assert record["body"] is None
    assert len(record["body_cut"]) == len(record["answer"]) == 200_000


async def test_a_request_that_hangs_is_written_down_before_its_answer(tmp_path: Path) -> None:
    with FakeChatServer([ChatAnswer(hang=True)]) as server:
        async with OpenAIModel(OpenAIConfig(base_url=server.url, debug_dir=tmp_path / "dumps")) as model:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(model.conversation(ConversationStart("t")).respond, QUESTION)
                with anyio.fail_after(20):
                    await anyio.to_thread.run_sync(server.asked.wait)
                (path,) = (tmp_path / "dumps").iterdir()
                assert json.loads(path.read_text())["body"] == server.requests[0]
                tasks.cancel_scope.cancel()


async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with FakeChatServer() as server:
        with pytest.raises(ConfigError, match="cannot write to"):
            await said(server, debug_dir=tmp_path / "file" / "dumps")


async def test_the_old_name_of_dumps_gets_a_hint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("ATROPOS_DEBUG_AGENT_REQUEST_SAVE_DIR", "dumps")
    with FakeChatServer([completion("ok")]) as server:
        await said(server)
    assert "use --debug-model DIR" in caplog.text
    assert not (tmp_path / "work" / "dumps").exists()

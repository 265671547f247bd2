from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hermes_core.default_plugins.models import OracleModel, ReplayModel, ScriptedModel
from hermes_core.default_plugins.models.replay import ReplayConfig
from hermes_core.default_plugins.models.scripted import ScriptedConfig
from hermes_core.exceptions import ConfigError, ModelError
from hermes_core.execution import ToolCall
from hermes_core.models import AssistantTurn, ConversationStart, Message
from hermes_core.trajectory import Step, Trajectory, TrajectoryWriter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

START = ConversationStart("t", "task", 1)


async def test_the_oracle_plays_the_solution() -> None:
    turns = (AssistantTurn("", tool_calls=(ToolCall("ls"),)), AssistantTurn("done"))
    async with OracleModel() as model:
        talk = model.conversation(ConversationStart("t", "task", solution=turns))
        assert [await talk.respond([]) for _ in range(3)] == [*turns, AssistantTurn("", finish_reason="stop")]
        with pytest.raises(ModelError, match="no reference solution") as caught:
            model.conversation(START)
        assert "solution" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.jsonl", '{"content": "a", "tool_calls": [{"name": "ls", "arguments": {"x": 1}}]}\n\n"b"\n'),
        ("s.yaml", "- content: a\n  tool_calls:\n  - name: ls\n    arguments: {x: 1}\n- b\n"),
        ("s.json", '{"turns": [{"content": "a", "tool_calls": [{"name": "ls", "arguments": {"x": 1}}]}, "b"]}'),
    ],
)
async def test_a_script_may_be_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    async with ScriptedModel(ScriptedConfig(path=tmp_path / name)) as model:
        for _ in range(2):
            talk = model.conversation(START)
            first, second = await talk.respond([]), await talk.respond([])
            assert (first.content, first.tool_calls[0].arguments, second.content) == ("a", {"x": 1}, "b")
            with pytest.raises(ModelError, match="2 turns"):
                await talk.respond([])


@pytest.mark.parametrize("text", ["{", "- contnt: a\n", "3", "[]"])
async def test_a_file_that_is_no_script(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ConfigError):
        async with ScriptedModel(ScriptedConfig(path=tmp_path / "s.yaml")):
            pass
    with pytest.raises(ConfigError, match="cannot be read"):
        async with ScriptedModel(ScriptedConfig(path=tmp_path / "absent")):
            pass


async def test_a_script_with_an_unknown_format() -> None:
    with pytest.raises(ConfigError, match="unknown tool-call format"):
        async with ScriptedModel(ScriptedConfig(turns=("a",), tool_call_format="x")):
            pass


async def test_a_recording_is_played_by_task_and_sample(tmp_path: Path) -> None:
    said = Message("assistant", "hm", tool_calls=(ToolCall("ls", {"x": 1}, "c"),), reasoning="r")
    recorded = Trajectory(
        "task", 1, "completed", 1.0, {}, (said,), (Step(said, finish_reason="tool_calls"),), (), "m", None, 0.0, 0.0
    )
    async with TrajectoryWriter(tmp_path / "trajectories.jsonl") as writer:
        await writer.append(recorded)
    async with ReplayModel(ReplayConfig(path=tmp_path)) as model:
        talk = model.conversation(START)
        turn = await talk.respond([])
        assert (turn.content, turn.reasoning, turn.tool_calls) == ("hm", "r", said.tool_calls)
        with pytest.raises(ModelError, match="no further turn"):
            await talk.respond([])
        with pytest.raises(ModelError, match="holds no trajectory"):
            model.conversation(ConversationStart("t", "other"))
    with pytest.raises(ConfigError, match="nothing to replay"):
        async with ReplayModel(ReplayConfig(path=tmp_path / "absent")):
            pass


def tool_answer(text: str) -> Message:
    return Message("tool", text, tool_call_id="c", name="ls")


async def test_a_replay_reports_the_results_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked, final = Message("assistant", "", tool_calls=(ToolCall("ls", {}, "c"),)), Message("assistant", "done")
    opening = Message("user", "go")
    steps = (Step(asked), Step(final, metadata={"model": "m"}))
    async with TrajectoryWriter(tmp_path / "trajectories.jsonl") as writer:
        for sample in (0, 1):
            heard = (opening, asked, tool_answer("a"), final)
            await writer.append(Trajectory("task", sample, "completed", 1.0, {}, heard, steps, (), "m", None, 0.0, 0.0))
    async with ReplayModel(ReplayConfig(path=tmp_path)) as model:
        for sample, answer, differs in ((0, "a", None), (1, "b", [{"call_id": "c", "tool": "ls"}])):
            talk = model.conversation(ConversationStart("t", "task", sample))
            assert "differs" not in (await talk.respond([opening])).metadata
            last = await talk.respond([opening, asked, tool_answer(answer)])
            assert (last.metadata["model"], last.metadata.get("differs")) == ("m", differs)
        assert not caplog.records
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("1 of 2 replayed trajectories")
    assert said.endswith(": task/1 (1)")

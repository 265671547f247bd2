from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hermes_core.execution import ToolCall, ToolResult
from hermes_core.models import MalformedCall, Message, TurnTokens, Usage
from hermes_core.trajectory import Step, Trajectory, TurnSpan, to_dict, trajectory_from_dict, turns_to_segments
from hermes_core.trajectory._codec import encode_line


def sample(*turns: TurnTokens, task_id: str = "task", sample_index: int = 0, reward: float | None = 1.0) -> Trajectory:
    """A trajectory with one step for each turn."""
    call = ToolCall("ls", {"path": "é\u2028"}, "c1")
    asked, result = Message("assistant", "hm", tool_calls=(call,), reasoning="why"), Message("tool", "{}", name="ls")
    answer = Message("assistant", "done")
    steps = (
        Step(
            asked,
            (ToolResult("c1", False, {"x": [1, None]}, "bad", {"exit_code": 3}),),
            malformed=(MalformedCall("<", "no"),),
            usage=Usage(3, 4),
            tokens=turns[0] if turns else None,
            metadata={"id": "r"},
            model_s=0.1,
        ),
        Step(answer, finish_reason="stop", tokens=turns[1] if len(turns) > 1 else None, tools_s=0.2),
    )
    return Trajectory(
        task_id,
        sample_index,
        "completed",
        reward,
        {"steps": 2.0},
        (Message("user", "hi"), asked, result, answer),
        steps,
        turns_to_segments(turns),
        "model",
        "local",
        1700000000.125,
        0.1 + 0.2,
        details={"k": ["v"]},
    )


logprobs = st.floats(-1e4, 0, exclude_min=True).filter(lambda x: x > -9999)


@given(st.lists(logprobs, min_size=1, max_size=5), st.booleans())
def test_decoding_undoes_encoding_exactly(drawn: list[float], extends: bool) -> None:
    first = TurnTokens((1, 2), tuple(range(len(drawn))), tuple(drawn), "processed", True, "v7")
    prompt = first.prompt_ids + first.completion_ids + (9,) if extends else (8,)
    trajectory = sample(first, TurnTokens(prompt, (3,), (-0.1,)))
    line = encode_line(to_dict(trajectory))
    assert line.count(b"\n") == 1
    assert trajectory_from_dict(json.loads(line)) == trajectory


def test_prompts_are_not_written_once_per_turn() -> None:
    first = TurnTokens(tuple(range(10_000)), (1,), (-0.5,))
    second = TurnTokens(first.prompt_ids + first.completion_ids + (5,), (2,), (-0.5,))
    data = to_dict(sample(first, second))
    assert "prompt_ids" not in json.dumps(data["steps"])
    assert len(json.dumps(data["steps"])) < 2_000


def test_places_that_were_recorded_are_written_if_they_can_be_right() -> None:
    first = TurnTokens((1, 2), (3,), (-0.5,))
    second = TurnTokens((1, 2, 3, 5), (2,), (-0.5,), after=first)
    trajectory = sample(first, second)
    for spans in (((0, 2, 3), (0, 4, 5)), ((0, 4, 5), (0, 2, 3)), ((0, 2, 3), (1, 4, 5)), ((0, 2, 3), (0, 4, 6))):
        steps = tuple(replace(s, span=TurnSpan(*span)) for s, span in zip(trajectory.steps, spans, strict=True))
        written = json.loads(encode_line(to_dict(replace(trajectory, steps=steps))))
        assert [(s["tokens"]["segment"], s["tokens"]["start"], s["tokens"]["end"]) for s in written["steps"]] == [
            (0, 2, 3),
            (0, 4, 5),
        ]
        assert trajectory_from_dict(written) == trajectory


def test_tokens_that_lie_in_no_segment_are_written_out() -> None:
    turn = TurnTokens((1,), (2,), (-0.5,))
    trajectory = replace(sample(turn), segments=())
    assert trajectory_from_dict(json.loads(encode_line(to_dict(trajectory)))) == trajectory


def test_what_json_has_no_word_for_does_not_lose_the_record() -> None:
    odd = {"nan": math.nan, "path": Path("/x"), "set": {1}, "half": "\ud800"}
    trajectory = replace(sample(), details=odd)  # type: ignore[arg-type]
    details = trajectory_from_dict(json.loads(encode_line(to_dict(trajectory)))).details
    assert details == {"nan": "nan", "path": "/x", "set": [1], "half": "\ud800"}

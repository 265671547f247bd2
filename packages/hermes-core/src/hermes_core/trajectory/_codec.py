"""Trajectories as JSON objects, one to a line. Floats survive exactly; prompts are not written once per turn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import TokenDataError
from hermes_core.execution import ToolCall, ToolResult
from hermes_core.models import MalformedCall, Message, TurnTokens, Usage
from hermes_core.trajectory._recorder import SegmentRecorder
from hermes_core.trajectory._types import Segment, Step, Trajectory, TurnSpan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import JsonValue

__all__ = ["encode_line", "message_from_dict", "to_dict", "trajectory_from_dict"]


def to_dict(trajectory: Trajectory) -> dict[str, JsonValue]:
    """Write a trajectory as a JSON object.

    A step names its message by index. Its tokens are a reference: the prompt is `segments[segment].ids[:start]`, the
    completion `ids[start:end]`, with the logprobs at the same place.
    """
    places = {id(message): index for index, message in enumerate(trajectory.messages)}
    spans = _spans(trajectory)
    return {
        "task_id": trajectory.task_id,
        "sample_index": trajectory.sample_index,
        "outcome": trajectory.outcome,
        "reward": trajectory.reward,
        "metrics": dict(trajectory.metrics),
        "model": trajectory.model,
        "backend": trajectory.backend,
        "started_at": trajectory.started_at,
        "duration_s": trajectory.duration_s,
        "error": trajectory.error,
        "details": dict(trajectory.details),
        "messages": [message.to_dict() for message in trajectory.messages],
        "steps": [_step_to_dict(step, places, span) for step, span in zip(trajectory.steps, spans, strict=True)],
        "segments": [
            {"ids": list(segment.ids), "mask": list(segment.mask), "logprobs": list(segment.logprobs)}
            for segment in trajectory.segments
        ],
    }


def trajectory_from_dict(data: Mapping[str, Any]) -> Trajectory:
    """Read what `to_dict` wrote.

    Raises:
        KeyError, TypeError, ValueError: It is something else.
    """
    messages = tuple(message_from_dict(message) for message in data["messages"])
    segments = tuple(Segment(tuple(s["ids"]), tuple(s["mask"]), tuple(s["logprobs"])) for s in data["segments"])
    return Trajectory(
        task_id=data["task_id"],
        sample_index=data["sample_index"],
        outcome=data["outcome"],
        reward=data["reward"],
        metrics=data["metrics"],
        messages=messages,
        steps=tuple(_step_from_dict(step, messages, segments) for step in data["steps"]),
        segments=segments,
        model=data["model"],
        backend=data["backend"],
        started_at=data["started_at"],
        duration_s=data["duration_s"],
        error=data.get("error"),
        details=data.get("details", {}),
    )


def message_from_dict(data: Mapping[str, Any]) -> Message:
    """Read what `Message.to_dict` wrote."""
    calls = (
        ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in data.get("tool_calls", ())
    )
    return Message(
        data["role"],
        data["content"],
        tool_calls=tuple(calls),
        tool_call_id=data.get("tool_call_id"),
        name=data.get("name"),
        reasoning=data.get("reasoning"),
    )


def encode_line(data: Mapping[str, JsonValue]) -> bytes:
    """One line of JSONL with its line end. What JSON has no word for (NaN, a path, …) is written as text."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_foreign)
    except ValueError:
        text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_foreign)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # half a surrogate pair: only the escaped form can carry it
        return f"{json.dumps(json.loads(text), separators=(',', ':'))}\n".encode()


def _spans(trajectory: Trajectory) -> Sequence[TurnSpan | None]:
    """Where each step's tokens lie in the segments; None for a step without any, or if they lie nowhere."""
    if all(step.tokens is None or _lies(step.tokens, step.span, trajectory.segments) for step in trajectory.steps):
        return [step.span if step.tokens else None for step in trajectory.steps]
    recorder = SegmentRecorder()
    try:
        spans = [recorder.add(step.tokens) if step.tokens else None for step in trajectory.steps]
    except TokenDataError:
        return [None] * len(trajectory.steps)
    return spans if recorder.segments == trajectory.segments else [None] * len(trajectory.steps)


def _lies(tokens: TurnTokens, span: TurnSpan | None, segments: Sequence[Segment]) -> bool:
    """Whether a recorded place can be the right one; its prompt is not compared once more."""
    if span is None or span.segment >= len(segments):
        return False
    start = len(tokens.prompt_ids)
    if (span.start, span.end) != (start, start + len(tokens.completion_ids)):
        return False
    return segments[span.segment].ids[span.start : span.end] == tokens.completion_ids


def _step_to_dict(step: Step, places: Mapping[int, int], span: TurnSpan | None) -> dict[str, JsonValue]:
    place = places.get(id(step.message))
    return {
        "message": step.message.to_dict() if place is None else place,
        "calls": [{"id": c.id, "name": c.name, "arguments": dict(c.arguments)} for c in step.calls],
        "results": [
            {
                "call_id": r.call_id,
                "success": r.success,
                "output": r.output,
                "error": r.error,
                "metadata": dict(r.metadata),
            }
            for r in step.results
        ],
        "malformed": [{"text": m.text, "error": m.error} for m in step.malformed],
        "finish_reason": step.finish_reason,
        "usage": None
        if step.usage is None
        else {"prompt_tokens": step.usage.prompt_tokens, "completion_tokens": step.usage.completion_tokens},
        "tokens": None if step.tokens is None else _tokens_to_dict(step.tokens, span),
        "metadata": dict(step.metadata),
        "model_s": step.model_s,
        "tools_s": step.tools_s,
    }


def _step_from_dict(data: Mapping[str, Any], messages: Sequence[Message], segments: Sequence[Segment]) -> Step:
    place, tokens = data["message"], data["tokens"] or {}
    return Step(
        messages[place] if isinstance(place, int) else message_from_dict(place),
        tuple(ToolResult(**result) for result in data["results"]),
        malformed=tuple(MalformedCall(**malformed) for malformed in data["malformed"]),
        finish_reason=data["finish_reason"],
        usage=Usage(**data["usage"]) if data["usage"] else None,
        tokens=_tokens_from_dict(tokens, segments) if tokens else None,
        span=TurnSpan(tokens["segment"], tokens["start"], tokens["end"]) if "segment" in tokens else None,
        metadata=data["metadata"],
        model_s=data["model_s"],
        tools_s=data["tools_s"],
    )


def _tokens_to_dict(tokens: TurnTokens, span: TurnSpan | None) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {
        "logprobs_mode": tokens.logprobs_mode,
        "constrained": tokens.constrained,
        "policy_version": tokens.policy_version,
    }
    if span is not None:
        return {"segment": span.segment, "start": span.start, "end": span.end, **facts}
    return {
        "prompt_ids": list(tokens.prompt_ids),
        "completion_ids": list(tokens.completion_ids),
        "logprobs": list(tokens.logprobs),
        **facts,
    }


def _tokens_from_dict(data: Mapping[str, Any], segments: Sequence[Segment]) -> TurnTokens:
    if "segment" in data:
        segment, start, end = segments[data["segment"]], data["start"], data["end"]
        ids, completion, logprobs = segment.ids[:start], segment.ids[start:end], segment.logprobs[start:end]
    else:
        ids, completion, logprobs = (tuple(data[key]) for key in ("prompt_ids", "completion_ids", "logprobs"))
    return TurnTokens(ids, completion, logprobs, data["logprobs_mode"], data["constrained"], data["policy_version"])


def _foreign(value: object) -> JsonValue:
    """Plugins put all kinds of things into metadata; a record must not be lost over one."""
    if isinstance(value, Mapping):
        return dict(value)
    return [*value] if isinstance(value, (set, frozenset)) else str(value)


def _finite(value: Any) -> JsonValue:  # noqa: ANN401 - anything that a plugin put in
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value  # type: ignore[no-any-return]

"""The chat API's JSON: what is sent, and what comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast, get_args

from hermes_core.execution import ToolCall
from hermes_core.models import AssistantTurn, FinishReason, MalformedCall, Usage, decode_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.execution import JsonValue, ToolDefinition
    from hermes_core.models import Message, Sampling, ToolCallFormat

__all__ = [
    "UnusableAnswerError",
    "decoded_body",
    "listed_models",
    "message_to_wire",
    "plain_to_wire",
    "sampling_to_wire",
    "tool_to_wire",
    "turn_from_wire",
]

_KEPT = 2_000
_BODY_KEPT = 20_000
_FINISH = {"function_call": "tool_calls", "eos": "stop", "max_tokens": "length"}
_RECORDED = ("id", "model", "created", "system_fingerprint")


class UnusableAnswerError(Exception):
    """An answer with status 200 that is no completion.

    Attributes:
        status: The status that the answer says it should have had, or None.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def message_to_wire(message: Message) -> dict[str, object]:
    """One message with structured calls."""
    if message.role == "tool" and message.tool_call_id is None:
        # It answers text that was no call, and the API knows no such thing.
        return {"role": "user", "content": message.content}
    wire: dict[str, object] = {"role": message.role, "content": message.content}
    if message.role == "tool":
        wire["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, default=dict)},
            }
            for call in message.tool_calls
        ]
    return wire


def tool_to_wire(tool: ToolDefinition) -> dict[str, object]:
    """One tool."""
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def sampling_to_wire(sampling: Sampling) -> dict[str, object]:
    """The sampling parameters that are set."""
    given: dict[str, object] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "max_tokens": sampling.max_tokens,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
    }
    return {name: value for name, value in given.items() if value is not None}


def turn_from_wire(body: str, form: ToolCallFormat | None) -> AssistantTurn:
    """Read a completion.

    Args:
        body: The answer's body.
        form: The text format to read calls by; None for structured ones.

    Raises:
        UnusableAnswerError: It is something else.
    """
    data = decoded_body(body)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise UnusableAnswerError(f"no choices with a message: {body[:_BODY_KEPT]}")
    content, reasoning = _text(message.get("content")), _reasoning(message)
    calls, malformed = _structured_calls(message.get("tool_calls"))
    if reasoning and not content.strip() and not calls and not malformed:
        # Servers that split off reasoning put the whole turn there when its end was never sampled.
        content, reasoning = reasoning, None
    if form is not None:
        parsed = form.parse(content)
        content, calls, malformed = parsed.content, [*parsed.calls, *calls], [*parsed.malformed, *malformed]
    return AssistantTurn(
        content,
        tool_calls=tuple(calls),
        malformed=tuple(malformed),
        reasoning=reasoning,
        finish_reason=_finish_reason(choice.get("finish_reason")),
        usage=_usage(data.get("usage")),
        metadata=_metadata(data, choice),
    )


def listed_models(body: str) -> list[str]:
    """The ids of an answer of `GET /models`; none if it is something else."""
    try:
        data = decoded_body(body).get("data")
    except UnusableAnswerError:
        return []
    entries = data if isinstance(data, list) else []
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def decoded_body(body: str) -> dict[str, Any]:
    """Read an answer's JSON object.

    Raises:
        UnusableAnswerError: It is none, or says that something went wrong.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise UnusableAnswerError(f"no JSON: {body[:_BODY_KEPT]}") from None
    if not isinstance(data, dict):
        raise UnusableAnswerError(f"no JSON object: {body[:_BODY_KEPT]}")
    fault = data.get("error")
    if fault and "choices" not in data:
        code = fault.get("code") if isinstance(fault, dict) else None
        raise UnusableAnswerError(f"an error: {body[:_BODY_KEPT]}", status=code if isinstance(code, int) else 500)
    return data


def _text(content: object) -> str:
    if isinstance(content, list):  # content parts
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _reasoning(message: Mapping[str, object]) -> str | None:
    found = (message.get(name) for name in ("reasoning_content", "reasoning"))
    return next((text for text in found if isinstance(text, str) and text.strip()), None)


def _structured_calls(entries: object) -> tuple[list[ToolCall], list[MalformedCall]]:
    calls: list[ToolCall] = []
    malformed: list[MalformedCall] = []
    for entry in entries if isinstance(entries, list) else []:
        function = entry.get("function") if isinstance(entry, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str) or not name:
            malformed.append(MalformedCall(json.dumps(entry)[:_KEPT], "the call names no function"))
            continue
        try:
            arguments = _arguments(function.get("arguments"))
        except ValueError as error:
            text = f"{name}({function.get('arguments')})"[:_KEPT]
            malformed.append(MalformedCall(text, f"the arguments are no JSON object: {error}"))
            continue
        call_id = entry.get("id")
        known = isinstance(call_id, str) and call_id
        calls.append(ToolCall(name, arguments, call_id) if known else ToolCall(name, arguments))
    return calls, malformed


def _arguments(given: object) -> dict[str, JsonValue]:
    if given is None or given == "":
        return {}  # how several servers write a call without arguments
    # Some servers send the object itself; it goes through the same strict door.
    return decode_json_object(given if isinstance(given, str) else json.dumps(given))


def _finish_reason(given: object) -> FinishReason:
    reason = _FINISH.get(given, given) if isinstance(given, str) else None
    return cast("FinishReason", reason) if reason in get_args(FinishReason) else "unknown"


def _usage(given: object) -> Usage | None:
    if not isinstance(given, dict):
        return None
    counts = [given.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) else 0 for count in counts)
    return Usage(prompt, completion)


def _metadata(data: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {name: data[name] for name in _RECORDED if data.get(name) is not None}
    facts["finish_reason"] = choice.get("finish_reason")
    usage = data.get("usage")
    if isinstance(usage, dict):
        facts["usage"] = usage
    return facts


def plain_to_wire(messages: Sequence[Message]) -> list[dict[str, object]]:
    """Messages that are text only."""
    return [{"role": message.role, "content": message.content} for message in messages]

"""What the model is told about its calls."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.models import Message

if TYPE_CHECKING:
    from hermes_core.execution import JsonValue, ToolCall, ToolResult
    from hermes_core.models import AssistantTurn, MalformedCall

__all__ = ["THINK_ONLY_ANSWER", "answer_call", "answer_malformed", "only_thinks"]

THINK_ONLY_ANSWER = Message(
    "user", "Your turn held only thinking. Close </think>, then call a tool or write your final answer."
)
_THINKING = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_EXCERPT = 200


def answer_call(call: ToolCall, result: ToolResult) -> Message:
    """The `tool` message of a result. Its metadata are for the record only."""
    body: dict[str, JsonValue] = {"success": result.success, "output": result.output, "uniq_id": call.id}
    if result.error is not None:
        body["error"] = result.error
    return Message("tool", _to_json(body), tool_call_id=call.id, name=call.name)


def answer_malformed(malformed: MalformedCall) -> Message:
    """The `tool` message that asks to write a call again. There is no call, so it names none."""
    excerpt = malformed.text[:_EXCERPT] + ("…" if len(malformed.text) > _EXCERPT else "")
    error = f"Malformed tool call, nothing was run: {malformed.error}. Write the call again. You wrote: {excerpt}"
    return Message("tool", _to_json({"success": False, "output": None, "uniq_id": None, "error": error}))


def only_thinks(turn: AssistantTurn) -> bool:
    """Whether a turn thinks and then neither answers nor calls."""
    if turn.tool_calls or turn.malformed:
        return False
    content = turn.content
    if "<think>" not in content and "</think>" in content:
        content = f"<think>{content}"  # the chat template opened the thinking
    return bool(content.strip() or turn.reasoning) and not _THINKING.sub("", content).strip()


def _to_json(body: dict[str, JsonValue]) -> str:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # a tool returned NaN or infinity, which JSON has no word for
        return json.dumps(body | {"output": str(body["output"])}, ensure_ascii=False)

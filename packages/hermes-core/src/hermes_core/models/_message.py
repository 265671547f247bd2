"""Messages of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hermes_core.execution import JsonValue, ToolCall

__all__ = ["Message", "Role"]

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message, in the form of the chat APIs.

    Attributes:
        role: Who speaks.
        content: The text; for `tool`, the result as JSON.
        tool_calls: Calls of an assistant message.
        tool_call_id: The call that a `tool` message answers; None when it answers text that was no well-formed call.
        name: The tool's name in a `tool` message.
        reasoning: Thinking that the model's endpoint returned apart from the content.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None

    def to_dict(self) -> dict[str, JsonValue]:
        """As a JSON object in the chat APIs' spelling; call arguments stay a JSON object."""
        data: dict[str, JsonValue] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            data["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": dict(c.arguments)}}
                for c in self.tool_calls
            ]
        optional = {"tool_call_id": self.tool_call_id, "name": self.name, "reasoning": self.reasoning}
        return data | {key: value for key, value in optional.items() if value is not None}

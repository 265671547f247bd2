"""Tool calls, tool results, and what the model is told of a tool."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["JsonValue", "ToolCall", "ToolDefinition", "ToolResult"]

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""A value that JSON can carry."""


def _new_call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What the model asked for.

    Attributes:
        name: The tool's name as the model wrote it.
        arguments: Decoded JSON object.
        id: Given by the model's endpoint, or made here; unique within its trajectory.
    """

    name: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    id: str = field(default_factory=_new_call_id)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call gave back.

    Attributes:
        call_id: The call's `id`.
        success: False exactly when `error` is set.
        output: A string or a JSON value, as the tool returned it.
        error: One line for the model, or None.
        metadata: Facts for the record that the model does not see (exit code, duration in seconds, …).
    """

    call_id: str
    success: bool
    output: JsonValue = None
    error: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as the model sees it.

    Attributes:
        name: Unique among the enabled tools.
        description: What it does, for the model.
        parameters: JSON schema of an object: the call's arguments.
    """

    name: str
    description: str
    parameters: Mapping[str, JsonValue]

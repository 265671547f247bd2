"""Values that are written without their types, as `qwen3_coder` and `glm4.5` do.

A string is written as it is, anything else as JSON, so that `7` may be either: the tool's schema decides, and where it
says nothing, JSON that is no string is what it says. A string that would be misread so, or that holds a tag, is written
as a JSON string in a tag that says so: ` type="json"`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hermes_core.models import decode_json_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.execution import JsonValue, ToolDefinition

__all__ = ["AS_JSON", "Types", "types_of", "whole_json", "write_key", "write_value"]

AS_JSON = ' type="json"'
"""What a tag carries whose value is JSON, whatever the schema says."""

_PYTHONIC: dict[str, JsonValue] = {"True": True, "False": False, "None": None}  # as Jinja writes them


@dataclass(frozen=True, slots=True)
class Types:
    """What the schemas say: tool to parameter to JSON type, where that is one."""

    declared: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def read(self, tool: str, parameter: str, text: str) -> JsonValue:
        """Decide what a value is."""
        kind = self.declared.get(tool, {}).get(parameter)
        if kind == "string":
            return text
        if kind is not None and text in _PYTHONIC:
            return _PYTHONIC[text]
        try:
            value = whole_json(text)
        except ValueError:
            return text
        return text if isinstance(value, str) else value


def types_of(tools: Sequence[ToolDefinition]) -> Types:
    """Take the types out of the tools' schemas."""
    declared: dict[str, dict[str, str]] = {}
    for tool in tools:
        properties = tool.parameters.get("properties")
        kinds = declared[tool.name] = {}
        for name, schema in properties.items() if isinstance(properties, dict) else ():
            kind = schema.get("type") if isinstance(schema, dict) else None
            if isinstance(kind, str):
                kinds[name] = kind
    return Types(declared)


def whole_json(text: str) -> JsonValue:
    """Decode a text that is one JSON value and nothing else.

    Raises:
        ValueError: It is not.
    """
    value, end = decode_json_value(text, 0)
    if end != len(text):
        raise ValueError("text follows the JSON value")
    return value


def write_key(key: str) -> str:
    """A key as it stands in a tag: as it is if it is plain, else as a JSON string."""
    return key if key.replace("_", "").replace("-", "").isalnum() else _quoted(key)


def write_value(value: JsonValue) -> tuple[str, str]:
    """What the opening tag carries besides the key, and the value's text."""
    if not isinstance(value, str):
        return "", _quoted(value)
    try:
        misread = not isinstance(whole_json(value), str)
    except ValueError:
        misread = False
    return (AS_JSON, _quoted(value)) if misread or "</" in value else ("", value)


def _quoted(value: JsonValue) -> str:
    """JSON that holds no tag."""
    return json.dumps(value, ensure_ascii=False, default=dict).replace("<", "\\u003c").replace(">", "\\u003e")

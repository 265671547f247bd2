"""Values that are written without their types, as `qwen3_coder` and `glm4.5` do.

A string is written as it is, anything else as JSON, so that `7` may be either: the tool's schema decides, and where it
says nothing, JSON that is no string is what it says. A string that would be misread so, or that holds a tag, is written
as a JSON string in a tag that says so: ` type="json"`.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from hermes_core.models import MarkedFormat, decode_json_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.execution import JsonValue, ToolCall, ToolDefinition

__all__ = ["AS_JSON", "UntypedFormat", "read_key", "types_of", "write_key", "write_value"]

AS_JSON = ' type="json"'
"""What a tag carries whose value is JSON, whatever the schema says."""

_KEY = re.compile(r'[^\s<>"]+')
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


class UntypedFormat(MarkedFormat):
    """A format whose values carry no types.

    Args:
        types: What the tools' schemas say of them.
    """

    def __init__(self, types: Types | None = None) -> None:
        super().__init__()
        self._types = types or Types()

    def for_tools(self, tools: Sequence[ToolDefinition]) -> Self:
        """Read values as the schemas say."""
        return type(self)(types_of(tools))

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """One block for each call."""
        return "\n".join(self.write_call(call) for call in calls)

    @abstractmethod
    def write_call(self, call: ToolCall) -> str:
        """Write one call."""

    def find_value(self, text: str, start: int, closer: str) -> tuple[str, bool, int] | None:
        """Find the text of a value, whether it is marked as JSON, and where it ends; None if it is not closed.

        Args:
            text: The turn.
            start: Where the opening tag goes on behind its name.
            closer: The closing tag.
        """
        as_json = text.startswith(AS_JSON, start)
        start += len(AS_JSON) if as_json else 0
        end = text.find(closer, start)
        if not text.startswith(">", start) or end < 0:
            return None
        return text[start + 1 : end], as_json, end + len(closer)

    def read_value(self, tool: str, key: str, text: str, as_json: bool) -> JsonValue:
        """Decide what the text of a value is."""
        return whole_json(text) if as_json else self._types.read(tool, key, text)


def read_key(text: str, start: int) -> tuple[str, int]:
    """Read a key, plain or as a JSON string; gives where it ends.

    Raises:
        ValueError: None begins at `start`.
    """
    if text.startswith('"', start):
        value, end = decode_json_value(text, start)
        return str(value), end
    key = _KEY.match(text, start)
    if not key:
        raise ValueError("the name of a parameter is expected")
    return key.group(), key.end()


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

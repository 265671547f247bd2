"""The `qwen3_coder` format: `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.default_plugins.tool_call_formats._untyped_values import (
    AS_JSON,
    Types,
    types_of,
    whole_json,
    write_key,
    write_value,
)
from hermes_core.execution import ToolCall
from hermes_core.models import MarkedFormat, decode_json_value, skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import JsonValue, ToolDefinition

__all__ = ["QWEN3_CODER", "Qwen3CoderFormat"]

_FUNCTION = re.compile(rf"\s*<function=({NAME})>")
_KEY = re.compile(r'[^\s<>"]+')
_END_VALUE = "</parameter>"
_END = re.compile(r"</function>\s*</tool_call>")


class Qwen3CoderFormat(MarkedFormat):
    """Calls as tags, one for each argument; a value loses one line break at each end."""

    name = "qwen3_coder"
    opener, closer = "<tool_call>", "</tool_call>"
    form = """\
A call names the function and its arguments in tags, each value on lines of its own:
<tool_call>
<function=FUNCTION>
<parameter=PARAMETER>
VALUE
</parameter>
</function>
</tool_call>
Strings are written as they are, other values as JSON."""

    def __init__(self, types: Types | None = None) -> None:
        super().__init__()
        self._types = types or Types()

    def for_tools(self, tools: Sequence[ToolDefinition]) -> Self:
        """Read values as the schemas say."""
        return type(self)(types_of(tools))

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read the function, its parameters, and the closing tags."""
        opened = _FUNCTION.match(text, start)
        if not opened:
            raise ValueError("<function=NAME> is expected")
        name, arguments = opened.group(1), dict[str, "JsonValue"]()
        position = skip_whitespace(text, opened.end())
        while text.startswith("<parameter=", position):
            key, value, position = self._read_parameter(text, position + len("<parameter="), name)
            if key in arguments:
                raise ValueError(f"the parameter {key!r} is given twice")
            arguments[key] = value
            position = skip_whitespace(text, position)
        ended = _END.match(text, position)
        if not ended:
            raise ValueError("</function></tool_call> is expected")
        return ToolCall(name, arguments), ended.end()

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """One block for each call."""
        return "\n".join(self._write(call) for call in calls)

    def _read_parameter(self, text: str, start: int, tool: str) -> tuple[str, JsonValue, int]:
        key, position = read_key(text, start)
        as_json = text.startswith(AS_JSON, position)
        position += len(AS_JSON) if as_json else 0
        end = text.find(_END_VALUE, position)
        if not text.startswith(">", position) or end < 0:
            raise ValueError(f"the parameter {key[:100]!r} is not closed")
        value = text[position + 1 : end].removeprefix("\n").removesuffix("\n")
        return key, whole_json(value) if as_json else self._types.read(tool, key, value), end + len(_END_VALUE)

    def _write(self, call: ToolCall) -> str:
        parameters = []
        for key, value in call.arguments.items():
            mark, written = write_value(value)
            parameters.append(f"<parameter={write_key(key)}{mark}>\n{written}\n{_END_VALUE}\n")
        return f"<tool_call>\n<function={written_name(call.name)}>\n{''.join(parameters)}</function>\n</tool_call>"


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


QWEN3_CODER = Qwen3CoderFormat()
"""Stateless: one instance serves everyone."""

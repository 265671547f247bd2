"""The `glm4.5` format: `<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.default_plugins.tool_call_formats._untyped_values import (
    UntypedFormat,
    read_key,
    write_key,
    write_value,
)
from hermes_core.execution import ToolCall
from hermes_core.models import skip_whitespace

if TYPE_CHECKING:
    from hermes_core.execution import JsonValue

__all__ = ["GLM45", "GlmFormat"]

_NAME = re.compile(rf"\s*({NAME})\s*(?=<)")
_BETWEEN = re.compile(r"</arg_key>\s*<arg_value")
_END_VALUE = "</arg_value>"


class GlmFormat(UntypedFormat):
    """Calls as a name and pairs of tags, a key and a value each; a value is taken to the letter."""

    name = "glm4.5"
    opener, closer = "<tool_call>", "</tool_call>"
    form = """\
A call is the function's name and its arguments, a key and a value each:
<tool_call>FUNCTION
<arg_key>PARAMETER</arg_key>
<arg_value>VALUE</arg_value>
</tool_call>
Strings are written as they are, other values as JSON."""

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read the name, the pairs, and the closing tag."""
        named = _NAME.match(text, start)
        if not named:
            raise ValueError("the name of a function is expected")
        name, position, arguments = named.group(1), named.end(), dict[str, "JsonValue"]()
        while text.startswith("<arg_key>", position):
            key, value, position = self._read_pair(text, position + len("<arg_key>"), name)
            if key in arguments:
                raise ValueError(f"the argument {key!r} is given twice")
            arguments[key] = value
            position = skip_whitespace(text, position)
        if not text.startswith(self.closer, position):
            raise ValueError("<arg_key> or </tool_call> is expected")
        return ToolCall(name, arguments), position + len(self.closer)

    def _read_pair(self, text: str, start: int, tool: str) -> tuple[str, JsonValue, int]:
        key, position = read_key(text, start)
        between = _BETWEEN.match(text, position)
        if not between:
            raise ValueError(f"<arg_value> is expected after the key {key[:100]!r}")
        found = self.find_value(text, between.end(), _END_VALUE)
        if found is None:
            raise ValueError(f"the value of {key[:100]!r} is not closed")
        value, as_json, end = found
        return key, self.read_value(tool, key, value, as_json), end

    def write_call(self, call: ToolCall) -> str:
        """A block."""
        pairs = []
        for key, value in call.arguments.items():
            mark, written = write_value(value)
            pairs.append(f"<arg_key>{write_key(key)}</arg_key>\n<arg_value{mark}>{written}{_END_VALUE}\n")
        return f"<tool_call>{written_name(call.name)}\n{''.join(pairs)}</tool_call>"


GLM45 = GlmFormat()
"""Stateless: one instance serves everyone."""

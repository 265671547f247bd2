"""The `qwen3_coder` format: `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`."""

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

__all__ = ["QWEN3_CODER", "Qwen3CoderFormat"]

_FUNCTION = re.compile(rf"\s*<function=({NAME})>")
_END_VALUE = "</parameter>"
_END = re.compile(r"</function>\s*</tool_call>")


class Qwen3CoderFormat(UntypedFormat):
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

    def _read_parameter(self, text: str, start: int, tool: str) -> tuple[str, JsonValue, int]:
        key, position = read_key(text, start)
        found = self.find_value(text, position, _END_VALUE)
        if found is None:
            raise ValueError(f"the parameter {key[:100]!r} is not closed")
        value, as_json, end = found
        return key, self.read_value(tool, key, value.removeprefix("\n").removesuffix("\n"), as_json), end

    def write_call(self, call: ToolCall) -> str:
        """A block."""
        parameters = []
        for key, value in call.arguments.items():
            mark, written = write_value(value)
            parameters.append(f"<parameter={write_key(key)}{mark}>\n{written}\n{_END_VALUE}\n")
        return f"<tool_call>\n<function={written_name(call.name)}>\n{''.join(parameters)}</function>\n</tool_call>"


QWEN3_CODER = Qwen3CoderFormat()
"""Stateless: one instance serves everyone."""

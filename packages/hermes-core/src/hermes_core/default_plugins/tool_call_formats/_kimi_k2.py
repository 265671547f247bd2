"""The `kimi_k2` format: `<|tool_call_begin|>functions.name:0<|tool_call_argument_begin|>{json}<|tool_call_end|>`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.default_plugins.tool_call_formats._sections import SectionFormat, json_within, read_arguments
from hermes_core.models import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall
    from hermes_core.models import Message

__all__ = ["KIMI_K2", "KimiK2Format"]

_ARGUMENTS = "<|tool_call_argument_begin|>"
_HEAD = re.compile(rf"\s*functions\.({NAME}):\d{{1,9}}\s*{re.escape(_ARGUMENTS)}")
_TAIL = re.compile(r"\s*<\|tool_call_end\|>")
_RETURN = re.compile(r"^##(?= Return of )", re.MULTILINE)
_ESCAPED = r"\\#\\#"


class KimiK2Format(SectionFormat):
    """Calls with an id of the function's name and a number.

    The number begins anew in every turn of some models, so that the id does not become the call's.
    """

    name = "kimi_k2"
    section = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
    call = ("<|tool_call_begin|>", "<|tool_call_end|>")
    form = (
        "All calls of a turn stand in one section, each as an id (the function's name and the call's number in the "
        "turn, from 0) and a JSON object of the arguments:\n"
        f"{section[0]}{call[0]}functions.FUNCTION:0{_ARGUMENTS}ARGUMENTS{call[1]}{section[1]}"
    )
    results = 'below lines "## Return of ID"'

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read the id, the arguments, and the closing marker."""
        head = _HEAD.match(text, start)
        if not head:
            raise ValueError(f"functions.NAME:NUMBER{_ARGUMENTS} is expected")
        return read_arguments(head.group(1), text, head.end(), _TAIL)

    def write_call(self, call: ToolCall, index: int) -> str:
        """The id and the arguments."""
        return f"functions.{written_name(call.name)}:{index}{_ARGUMENTS}{json_within(call)}"

    def render_results(self, results: Sequence[Message]) -> str:
        """A line that names the call, and below it the result."""
        return "\n".join(_written(message, index) for index, message in enumerate(results))


def _written(message: Message, index: int) -> str:
    name = "_".join((message.name or "unknown").split())
    return f"## Return of functions.{harmless(name)}:{index}\n{_RETURN.sub(_ESCAPED, harmless(message.content))}"


KIMI_K2 = KimiK2Format()
"""Stateless: one instance serves everyone."""

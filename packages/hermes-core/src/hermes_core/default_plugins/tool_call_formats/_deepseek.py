"""The formats `deepseek_v3` (a name, then a block of JSON) and `deepseek_v3.1` (a name, then JSON)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.default_plugins.tool_call_formats._sections import SectionFormat, json_within, read_arguments
from hermes_core.models import block_results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall
    from hermes_core.models import Message

__all__ = ["DEEPSEEK_V3", "DEEPSEEK_V31", "DeepSeekV3Format", "DeepSeekV31Format"]

_SEPARATOR = "<｜tool▁sep｜>"
_CALL = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")


class DeepSeekV31Format(SectionFormat):
    """DeepSeek V3.1: calls as `name<｜tool▁sep｜>{json}`."""

    name = "deepseek_v3.1"
    section = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
    call = _CALL
    form = (
        "All calls of a turn stand in one section, each as the function's name and a JSON object of its arguments:\n"
        f"{section[0]}{_CALL[0]}FUNCTION{_SEPARATOR}ARGUMENTS{_CALL[1]}{section[1]}"
    )
    results = "between <｜tool▁output▁begin｜> and <｜tool▁output▁end｜>"
    head = re.compile(rf"\s*({NAME})\s*{_SEPARATOR}")
    tail = re.compile(rf"\s*{_CALL[1]}")

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read the name, the arguments, and the closing marker."""
        head = self.head.match(text, start)
        if not head:
            raise ValueError(f"{self.write_head('NAME')!r} is expected")
        return read_arguments(head.group(1), text, head.end(), self.tail)

    def write_head(self, name: str) -> str:
        """What stands before the arguments."""
        return f"{name}{_SEPARATOR}"

    def write_call(self, call: ToolCall, index: int) -> str:
        """The name and the arguments."""
        return f"{self.write_head(written_name(call.name))}{json_within(call)}"

    def render_results(self, results: Sequence[Message]) -> str:
        """One section of all results."""
        outputs = block_results(results, "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")
        return f"<｜tool▁outputs▁begin｜>{outputs}<｜tool▁outputs▁end｜>"


class DeepSeekV3Format(DeepSeekV31Format):
    """DeepSeek V3 and R1: calls as `function<｜tool▁sep｜>name` and a fenced block of JSON."""

    name = "deepseek_v3"
    form = (
        "All calls of a turn stand in one section, each as the function's name and a block of JSON, its arguments:\n"
        f"{DeepSeekV31Format.section[0]}{_CALL[0]}function{_SEPARATOR}FUNCTION\n```json\nARGUMENTS\n```{_CALL[1]}"
        f"{DeepSeekV31Format.section[1]}"
    )
    head = re.compile(rf"\s*function\s*{_SEPARATOR}\s*({NAME})\s*```json\s*")
    tail = re.compile(rf"\s*```\s*{_CALL[1]}")

    def write_head(self, name: str) -> str:
        """What stands before the arguments."""
        return f"function{_SEPARATOR}{name}\n```json\n"

    def write_call(self, call: ToolCall, index: int) -> str:
        """The name and the block of arguments."""
        return f"{super().write_call(call, index)}\n```"


DEEPSEEK_V3 = DeepSeekV3Format()
"""Stateless: one instance serves everyone."""

DEEPSEEK_V31 = DeepSeekV31Format()
"""Stateless: one instance serves everyone."""

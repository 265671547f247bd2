"""The formats `pythonic` (`[f(a=1), g(b="x")]`) and `lfm2` (the same between markers)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._bare_format import BareFormat
from hermes_core.default_plugins.tool_call_formats._python_literals import read_python_calls, written_call
from hermes_core.models import block_results, skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall
    from hermes_core.models import Findings, Message

__all__ = ["LFM2", "PYTHONIC", "Lfm2Format", "PythonicFormat"]

_CLOSERS = {"<|python_start|>": "<|python_end|>", "<|tool_call_start|>": "<|tool_call_end|>"}


class PythonicFormat(BareFormat):
    """Calls as a list in Python's syntax that is the whole turn, or stands between markers; values are literals."""

    name = "pythonic"
    opener = "|".join(map(re.escape, _CLOSERS))
    closer = "<|python_end|>"
    markers = ("<|python_start|>", "<|python_end|>")
    looks_like_calls = re.compile(r"\[\s*[A-Za-z_][A-Za-z0-9_.-]*\(\s*(?:\w+\s*=|\)\s*[\],])")
    form = """\
The calls of a turn are one list in Python's syntax, of calls with keyword arguments whose values are literals, and
nothing stands beside it:
[FUNCTION(PARAMETER=VALUE)]"""

    def read_calls(self, text: str, start: int) -> tuple[list[ToolCall], int]:
        """Read the list."""
        return read_python_calls(text, start)

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read a list of one."""
        [call], end = read_python_calls(text, start)
        return call, end

    def read_block(self, text: str, start: int, end: int, findings: Findings) -> int:
        """Read the list between markers."""
        closer = _CLOSERS[text[start:end]]
        try:
            calls, position = read_python_calls(text, skip_whitespace(text, end))
            position = skip_whitespace(text, position)
            if not text.startswith(closer, position):
                raise ValueError("text follows the list of calls")
        except ValueError as error:
            close = text.find(closer, end)
            if close < 0:
                return findings.reject(start, len(text), f"{text[start:end]} is not closed")
            return findings.reject(start, close + len(closer), str(error))
        for call in calls:
            findings.add(call)
        return position + len(closer)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """The list."""
        return f"[{', '.join(map(written_call, calls))}]"

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """The list alone, or between markers that end the content."""
        if not calls or not content:
            return super().render_turn(content, calls)
        return self.marked(content, f"{self.markers[0]}{self.write_calls(calls)}{self.markers[1]}", calls)


class Lfm2Format(PythonicFormat):
    """The list always stands between markers."""

    name = "lfm2"
    markers = ("<|tool_call_start|>", "<|tool_call_end|>")
    form = """\
The calls of a turn are one list in Python's syntax, of calls with keyword arguments whose values are literals, between
markers:
<|tool_call_start|>[FUNCTION(PARAMETER=VALUE)]<|tool_call_end|>"""
    results = "between <|tool_response_start|> and <|tool_response_end|>"

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """The content, then the list between markers."""
        if not calls:
            return content
        return self.marked(content, f"{self.markers[0]}{self.write_calls(calls)}{self.markers[1]}", calls)

    def render_results(self, results: Sequence[Message]) -> str:
        """One block for each result."""
        return block_results(results, "<|tool_response_start|>", "<|tool_response_end|>")


PYTHONIC = PythonicFormat()
"""Stateless: one instance serves everyone."""

LFM2 = Lfm2Format()
"""Stateless: one instance serves everyone."""

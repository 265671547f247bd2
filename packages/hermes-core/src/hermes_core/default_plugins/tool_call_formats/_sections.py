"""What formats share that put a turn's calls into one section, each between markers of its own."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from typing import TYPE_CHECKING

from hermes_core.execution import ToolCall
from hermes_core.models import MarkedFormat, decode_json_prefix, skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models import Findings

__all__ = ["SectionFormat", "json_within", "read_arguments"]


class SectionFormat(MarkedFormat):
    """A section of calls. Every call must be closed; a section may end with the turn, where a stop string cut it.

    Attributes:
        section: What opens and closes the section.
        call: What opens and closes a call.
    """

    section: tuple[str, str]
    call: tuple[str, str]

    def __init__(self) -> None:
        self.opener, self.closer = re.escape(self.section[0]), self.call[1]
        super().__init__()

    @abstractmethod
    def write_call(self, call: ToolCall, index: int) -> str:
        """Write what stands between the markers of the call with this 0-based index in its turn."""

    def read_block(self, text: str, start: int, end: int, findings: Findings) -> int:
        """Read the calls of a section, and its end."""
        position = skip_whitespace(text, end)
        if not text.startswith(self.call[0], position):
            return findings.reject(start, self._resume(text, end), f"a call is expected after {self.section[0]}")
        while text.startswith(self.call[0], position):
            position = skip_whitespace(text, super().read_block(text, position, position + len(self.call[0]), findings))
        if text.startswith(self.section[1], position):
            return position + len(self.section[1])
        if position == len(text):
            return position
        return findings.reject(position, self._resume(text, position), f"a call or {self.section[1]} is expected")

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """One section of all calls."""
        written = (f"{self.call[0]}{self.write_call(call, index)}{self.call[1]}" for index, call in enumerate(calls))
        return f"{self.section[0]}{''.join(written)}{self.section[1]}"

    def _resume(self, text: str, start: int) -> int:
        end = text.find(self.section[1], start)
        return len(text) if end < 0 else end + len(self.section[1])


def json_within(call: ToolCall) -> str:
    """A call's arguments as JSON that holds no control token."""
    return json.dumps(call.arguments, ensure_ascii=False, default=dict).replace("<", "\\u003c")


def read_arguments(name: str, text: str, start: int, closing: re.Pattern[str]) -> tuple[ToolCall, int]:
    """Read the JSON object of a call's arguments and what closes the call.

    Raises:
        ValueError: They are not there.
    """
    arguments, end = decode_json_prefix(text, start)
    closed = closing.match(text, end)
    if not closed:
        raise ValueError("text follows the JSON object")
    return ToolCall(name, arguments), closed.end()

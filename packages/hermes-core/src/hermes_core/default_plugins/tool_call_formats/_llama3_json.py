"""The `llama3_json` format: `{"name": …, "parameters": {…}}`, several separated by `;`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._bare_format import BareFormat
from hermes_core.models import call_of_object, decode_json_prefix, skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall
    from hermes_core.models import Findings

__all__ = ["LLAMA3_JSON", "Llama3JsonFormat"]

_TAG = "<|python_tag|>"


class Llama3JsonFormat(BareFormat):
    """Calls as JSON objects that are the whole turn, or follow `<|python_tag|>` up to its end.

    JSON without a name and parameters is an answer.
    """

    name = "llama3_json"
    opener, closer = re.escape(_TAG), _TAG
    looks_like_calls = re.compile(r'\{\s*"name"\s*:[^{}]*"parameters"')
    form = """\
A call is one JSON object, and nothing stands beside the calls of a turn; two calls are separated by ";":
{"name": FUNCTION, "parameters": {PARAMETER: VALUE}}"""

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read one object."""
        value, end = decode_json_prefix(text, start)
        if "parameters" not in value:
            raise ValueError('"parameters" are missing')
        return call_of_object(value, "parameters"), end

    def read_calls(self, text: str, start: int) -> tuple[list[ToolCall], int]:
        """Read objects for as long as `;` follows."""
        calls: list[ToolCall] = []
        while True:
            call, end = self.read_call(text, start)
            calls.append(call)
            start = skip_whitespace(text, end)
            if not text.startswith(";", start):
                return calls, end
            start += 1

    def read_block(self, text: str, start: int, end: int, findings: Findings) -> int:
        """Read what follows the tag, which is calls up to the end of the turn or the next tag."""
        position = end
        try:
            while True:
                call, position = self.read_call(text, position)
                position = skip_whitespace(text, position)
                if position < len(text) and not text.startswith((";", _TAG), position):
                    raise ValueError("text follows the JSON object")
                findings.add(call)
                start = position
                if not text.startswith(";", position):
                    return position
                position += 1
        except ValueError as error:
            following = text.find(_TAG, max(end, start))
            return findings.reject(start, len(text) if following < 0 else following, str(error))

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """The objects, on one line."""
        objects = ({"name": call.name, "parameters": call.arguments} for call in calls)
        return "; ".join(json.dumps(one, ensure_ascii=False, default=dict).replace("<|", "\\u003c|") for one in objects)

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """The objects alone, or behind a tag that ends the content."""
        if not calls or not content:
            return super().render_turn(content, calls)
        return self.marked(content, f"{_TAG}{self.write_calls(calls)}", calls)


LLAMA3_JSON = Llama3JsonFormat()
"""Stateless: one instance serves everyone."""

"""The formats `mistral` (`[TOOL_CALLS] [{…}]`) and `mistral_v11` (`[TOOL_CALLS]name[ARGS]{…}`)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.execution import ToolCall
from hermes_core.models import (
    MarkedFormat,
    call_of_object,
    decode_json_prefix,
    decode_json_value,
    harmless,
    skip_whitespace,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models import Findings, Message

__all__ = ["MISTRAL", "MISTRAL_V11", "MistralFormat", "MistralV11Format"]

_MARK = "[TOOL_CALLS]"
_HEAD = re.compile(rf"\s*({NAME})\s*(?:\[CALL_ID\]\s*([A-Za-z0-9_-]+)\s*)?(?:\[ARGS\]|(?=\s*\{{))")


class MistralFormat(MarkedFormat):
    """Calls as a JSON array that ends the turn. `name[ARGS]{json}` is read too, as `mistral_v11` writes it."""

    name = "mistral"
    opener, closer = re.escape(_MARK), _MARK
    form = """\
The calls of a turn are one JSON array that ends the turn:
[TOOL_CALLS] [{"name": FUNCTION, "arguments": {PARAMETER: VALUE}}]"""
    results = "in [TOOL_RESULTS][/TOOL_RESULTS]"

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read a name and its arguments."""
        head = _HEAD.match(text, start)
        if not head:
            raise ValueError("a JSON array of calls or NAME[ARGS]{…} is expected")
        arguments, end = decode_json_prefix(text, head.end())
        return ToolCall(head.group(1), arguments, head.group(2)) if head.group(2) else ToolCall(
            head.group(1), arguments
        ), end

    def read_block(self, text: str, start: int, end: int, findings: Findings) -> int:
        """Read the calls behind one marker; only the end of the turn or a further marker may follow."""
        begin = skip_whitespace(text, end)
        try:
            if text.startswith("[", begin):
                values, position = decode_json_value(text, begin)
                if not isinstance(values, list) or not values:
                    raise ValueError("the array holds no call")
                calls = [call_of_object(value) for value in values]
            else:
                call, position = self.read_call(text, end)
                calls = [call]
            position = skip_whitespace(text, position)
            if position < len(text) and not text.startswith(_MARK, position):
                raise ValueError("text follows the calls")
        except ValueError as error:
            following = text.find(_MARK, end)
            return findings.reject(start, len(text) if following < 0 else following, str(error))
        for call in calls:
            findings.add(call)
        return position

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """The array, with the calls' ids."""
        objects = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in calls]
        return f"{_MARK} {json.dumps(objects, ensure_ascii=False, default=dict).replace(_MARK, _ESCAPED)}"

    def render_results(self, results: Sequence[Message]) -> str:
        """One block for each result, with the call's id."""
        return "".join(
            f'[TOOL_RESULTS]{{"content": {_content(message.content)}, "call_id": '
            f"{harmless(json.dumps(message.tool_call_id))}}}[/TOOL_RESULTS]"
            for message in results
        )


class MistralV11Format(MistralFormat):
    """Calls as `[TOOL_CALLS]name[ARGS]{json}`, one marker each. The array of `mistral` is read too."""

    name = "mistral_v11"
    form = """\
A call is a marker, the function's name, a marker, and a JSON object of the arguments; calls end the turn:
[TOOL_CALLS]FUNCTION[ARGS]ARGUMENTS"""

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """A marker for each call."""
        return "".join(
            f"{_MARK}{written_name(call.name)}[ARGS]"
            f"{json.dumps(call.arguments, ensure_ascii=False, default=dict).replace(_MARK, _ESCAPED)}"
            for call in calls
        )


_ESCAPED = _MARK.replace("[", "\\u005b")


def _content(content: str) -> str:
    """The result as a JSON value: as it is if it is JSON, else as a string."""
    try:
        value, end = decode_json_value(content, 0)
    except ValueError:
        value, end = content, len(content)
    if end != len(content):
        value = content
    return harmless(json.dumps(value, ensure_ascii=False))


MISTRAL = MistralFormat()
"""Stateless: one instance serves everyone."""

MISTRAL_V11 = MistralV11Format()
"""Stateless: one instance serves everyone."""

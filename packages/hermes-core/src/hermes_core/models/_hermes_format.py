"""The `hermes` format: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.execution import ToolCall
from hermes_core.models._arguments import call_of_object, decode_json_prefix, skip_whitespace
from hermes_core.models._marked_format import MarkedFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["HERMES_FORMAT", "HermesFormat"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_BARE_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.:-]*)\s*(?=\{)")

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}


class HermesFormat(MarkedFormat):
    """Calls as JSON in tags; results of a turn as one user turn of `<tool_response>` blocks.

    `name{json}` inside the tags is accepted too.
    """

    name = "hermes"
    opener, closer = _OPEN, _CLOSE
    form = f"A call is one JSON object of this schema, inside <tool_call></tool_call> tags:\n{json.dumps(_SCHEMA)}"

    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read the object and the closing tag."""
        bare = _BARE_NAME.match(text, start)
        value, end = decode_json_prefix(text, bare.end() if bare else start)
        end = skip_whitespace(text, end)
        if not text.startswith(_CLOSE, end):
            raise ValueError("text follows the JSON object")
        return ToolCall(bare.group(1), value) if bare else call_of_object(value), end + len(_CLOSE)

    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """One block for each call."""
        objects = ({"name": call.name, "arguments": call.arguments} for call in calls)
        return "\n".join(f"{_OPEN}\n{json.dumps(one, ensure_ascii=False, default=dict)}\n{_CLOSE}" for one in objects)


HERMES_FORMAT = HermesFormat()
"""Stateless: one instance serves everyone."""

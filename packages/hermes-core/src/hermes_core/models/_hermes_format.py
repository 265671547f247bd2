"""The `hermes` format: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from hermes_core.execution import ToolCall
from hermes_core.models._arguments import decode_json_prefix
from hermes_core.models._format import ParsedText
from hermes_core.models._turn import MalformedCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import JsonValue, ToolDefinition
    from hermes_core.models._message import Message

__all__ = ["HERMES_FORMAT", "HermesFormat"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_TAG = re.compile(r"</?think>|<tool_call>")
_BARE_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.:-]*)\s*(?=\{)")
_SPACE = re.compile(r"\s*")
_KEPT = 2_000  # characters of a malformed call
_MOST_MALFORMED = 32  # each error that `json` raises costs a pass over the text, so that their number must be bounded

_RULES = """\
You are an agent that solves tasks by calling functions. You may call the functions listed inside <tools></tools>:
<tools>
{tools}
</tools>

A call is one JSON object of this schema, inside <tool_call></tool_call> tags:
{schema}

Rules:
- Think first if you need to, in one <think></think> block; then write your calls and nothing else.
- "arguments" is a JSON object that fits the function's parameters. Close every tag.
- The results come back in <tool_response></tool_response> tags, one for each call, in order.
- A turn without a call is your final answer.

Examples, with made-up functions.
One call:
<think>I need the list of files.</think>
<tool_call>
{{"name": "list_files", "arguments": {{"folder": "src"}}}}
</tool_call>
A call that does several things at once:
<tool_call>
{{"name": "shell", "arguments": {{"command": "sort names.txt | uniq -c | sort -rn | head -n 3"}}}}
</tool_call>
Two calls in one turn:
<tool_call>
{{"name": "lookup", "arguments": {{"word": "slot"}}}}
</tool_call>
<tool_call>
{{"name": "lookup", "arguments": {{"word": "lease"}}}}
</tool_call>"""

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
    "required": ["name", "arguments"],
}


class HermesFormat:
    """Calls as JSON in tags; results of a turn as one user turn of `<tool_response>` blocks.

    `name{json}` inside the tags is accepted too. What stands inside `<think>` is thinking, closed or not: no call.
    """

    name = "hermes"

    def parse(self, text: str) -> ParsedText:
        """Find the calls, left to right.

        Linear: JSON is decoded in place, and a decoder that runs past the end of a bad call stops at the next `<`
        outside a string, so that no character is read more than a few times.
        """
        calls: list[ToolCall] = []
        malformed: list[MalformedCall] = []
        kept: list[str] = []
        position, thought = 0, False
        while tag := _TAG.search(text, position):
            start = tag.start()
            kept.append(text[position:start])
            if tag.group() == "<think>":
                end = text.find("</think>", start)
                position, thought = (len(text) if end < 0 else end + len("</think>")), True
                kept.append(text[start:position])
            elif tag.group() == "</think>":
                position = tag.end()
                if thought:
                    kept.append(tag.group())
                else:  # the chat template opened the thinking, so that only its end was sampled
                    calls, malformed, kept, thought = [], [], [text[:position]], True
            else:
                found, position = self._parse_call(text, tag.end(), last=len(malformed) == _MOST_MALFORMED - 1)
                if isinstance(found, ToolCall):
                    calls.append(found)
                else:
                    kept.append(text[start:position])
                    malformed.append(MalformedCall(text[start : min(position, start + _KEPT)], found))
        kept.append(text[position:])
        return ParsedText("".join(kept).strip() if calls else text, tuple(calls), tuple(malformed))

    def system_prompt(self, tools: Sequence[ToolDefinition]) -> str:
        """The tools as JSON, the schema of a call, the rules, and three examples."""
        listed = "\n".join(
            json.dumps(
                {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.parameters,
                    "required": None,
                },
                ensure_ascii=False,
                default=dict,
            )
            for tool in tools
        )
        return _RULES.format(tools=listed, schema=json.dumps(_SCHEMA))

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """The content, then one block for each call."""
        blocks = [
            f"{_OPEN}\n{json.dumps(_as_object(call), ensure_ascii=False, default=dict)}\n{_CLOSE}" for call in calls
        ]
        return "\n".join([content, *blocks] if content else blocks)

    def render_results(self, results: Sequence[Message]) -> str:
        """One block for each result."""
        # A tool's output must not be able to end its block: `<\/` is the same string in JSON.
        inside = (message.content.replace("</tool_response>", "<\\/tool_response>") for message in results)
        return "\n".join(f"<tool_response>\n{content}\n</tool_response>" for content in inside)

    def _parse_call(self, text: str, start: int, *, last: bool) -> tuple[ToolCall | str, int]:
        """Parse what follows an opening tag; gives the call, or what is wrong with it, and where it ends.

        The `last` malformed call that is looked at takes all further text with it.
        """
        try:
            bare = _BARE_NAME.match(text, start)
            value, end = decode_json_prefix(text, bare.end() if bare else start)
            end = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # it matches the empty string
            if not text.startswith(_CLOSE, end):
                raise ValueError("text follows the JSON object")
            return (ToolCall(bare.group(1), value) if bare else _from_object(value)), end + len(_CLOSE)
        except ValueError as error:
            close = text.find(_CLOSE, start)
            if close < 0:
                return f"{_OPEN} is not closed", len(text)
            return str(error), len(text) if last else close + len(_CLOSE)


def _as_object(call: ToolCall) -> dict[str, object]:
    return {"name": call.name, "arguments": call.arguments}


def _from_object(value: dict[str, JsonValue]) -> ToolCall:
    name, arguments, call_id = value.get("name"), value.get("arguments", {}), value.get("id")
    if not isinstance(name, str) or not name:
        raise ValueError('"name" must be a string that names a tool')
    if not isinstance(arguments, dict):
        raise ValueError('"arguments" must be a JSON object')
    return ToolCall(name, arguments, call_id) if isinstance(call_id, str) and call_id else ToolCall(name, arguments)


HERMES_FORMAT = HermesFormat()
"""Stateless: one instance serves everyone."""

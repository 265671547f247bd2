"""What formats share whose calls stand behind a marker: scanning a turn, strictly and in linear time."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from hermes_core.models._format import ParsedText
from hermes_core.models._tool_prompt import block_results, tool_prompt
from hermes_core.models._turn import MalformedCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall, ToolDefinition
    from hermes_core.models._message import Message

__all__ = ["Findings", "MarkedFormat"]

_KEPT = 2_000  # characters of a malformed call
_MOST_MALFORMED = 32  # each of them may cost a pass over the text, so that their number must be bounded


class Findings:
    """What was found in a turn so far, left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._kept: list[str] = []
        self._calls: list[ToolCall] = []
        self._malformed: list[MalformedCall] = []

    def keep(self, start: int, end: int) -> None:
        """Count a part of the text as content."""
        self._kept.append(self._text[start:end])

    def add(self, call: ToolCall) -> None:
        """Count a well-formed call."""
        self._calls.append(call)

    def reject(self, start: int, end: int, error: str) -> int:
        """Count a malformed call, which stays in the content.

        Returns:
            Where to go on: the last that is looked at takes all further text with it.
        """
        if len(self._malformed) == _MOST_MALFORMED - 1:
            end = len(self._text)
        self.keep(start, end)
        self._malformed.append(MalformedCall(self._text[start : min(end, start + _KEPT)], error))
        return end

    def restart(self, end: int) -> None:
        """Count everything up to `end` as thinking."""
        self._calls, self._malformed, self._kept = [], [], [self._text[:end]]

    def parsed(self) -> ParsedText:
        """The whole of it. A text without calls stays as it is."""
        content = "".join(self._kept).strip() if self._calls else self._text
        return ParsedText(content, tuple(self._calls), tuple(self._malformed))


class MarkedFormat(ABC):
    """Calls that an opening marker announces. What stands inside `<think>`, closed or not, is thinking: no call.

    A subclass says how one call is read and how calls are written; formats in which several calls share a marker
    override `read_block`.

    Attributes:
        name: As it is registered.
        opener: Regular expression of the opening markers.
        closer: Text after which reading goes on when a call was malformed.
        form: How a call looks, told to the model above the rules.
        results: Where results stand, told to the model.
    """

    name: str
    opener: str
    closer: str
    form: str
    results: str = "in <tool_response></tool_response> tags"

    def __init__(self) -> None:
        self._marks = re.compile(rf"</?think>|{self.opener}")

    @abstractmethod
    def read_call(self, text: str, start: int) -> tuple[ToolCall, int]:
        """Read what follows an opening marker, its closing one included; gives where it ends.

        Raises:
            ValueError: It is no well-formed call; the text is one line for the model.
        """

    @abstractmethod
    def write_calls(self, calls: Sequence[ToolCall]) -> str:
        """Write calls as they follow a content.

        Raises:
            ValueError: The format has no words for a call.
        """

    def read_block(self, text: str, start: int, end: int, findings: Findings) -> int:
        """Read what follows the opening marker at `start` to `end`; gives where to go on."""
        try:
            call, position = self.read_call(text, end)
        except ValueError as error:
            close = text.find(self.closer, end)
            if close < 0:
                return findings.reject(start, len(text), f"{text[start:end]} is not closed")
            return findings.reject(start, close + len(self.closer), str(error))
        findings.add(call)
        return position

    def parse(self, text: str) -> ParsedText:
        """Find the calls, left to right.

        Linear: a call is read in place, and of the malformed ones, whose error or end costs a pass, only so many
        are looked at.
        """
        findings = Findings(text)
        position, thought = 0, False
        while mark := self._marks.search(text, position):
            start, end = mark.span()
            findings.keep(position, start)
            if mark.group() == "<think>":
                close = text.find("</think>", start)
                position, thought = (len(text) if close < 0 else close + len("</think>")), True
                findings.keep(start, position)
            elif mark.group() == "</think>":
                position = end
                if thought:
                    findings.keep(start, end)
                else:  # the chat template opened the thinking, so that only its end was sampled
                    findings.restart(end)
                    thought = True
            else:
                position = self.read_block(text, start, end, findings)
        findings.keep(position, len(text))
        return findings.parsed()

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """The content, then the calls."""
        return self.marked(content, self.write_calls(calls), calls) if calls else content

    def marked(self, content: str, block: str, calls: Sequence[ToolCall]) -> str:
        """Join a content and the written calls.

        Markers in a content that would be read as calls, or hide the real ones, are written as character references.
        """
        if not content:
            return block
        turn = f"{content}\n{block}"
        if self._marks.search(content):
            parsed = self.parse(turn)
            if (parsed.content, len(parsed.calls)) != (content.strip(), len(calls)):
                return f"{self._marks.sub(_as_reference, content)}\n{block}"
        return turn

    def render_results(self, results: Sequence[Message]) -> str:
        """One `<tool_response>` block for each result."""
        return block_results(results, "<tool_response>\n", "\n</tool_response>")

    def system_prompt(self, tools: Sequence[ToolDefinition]) -> str:
        """The tools as JSON, the form of a call, the rules, and three examples."""
        return tool_prompt(tools, form=self.form, results=self.results, write=lambda calls: self.render_turn("", calls))

    def for_tools(self, tools: Sequence[ToolDefinition]) -> Self:
        """The same: this text form says itself of what type a value is."""
        return self


def _as_reference(mark: re.Match[str]) -> str:
    return f"&#{ord(mark.group()[0])};{mark.group()[1:]}"

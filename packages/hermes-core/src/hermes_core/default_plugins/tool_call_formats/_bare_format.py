"""What formats share in which a turn may consist of calls alone, without a marker."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING

from hermes_core.models import Findings, MarkedFormat, skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall
    from hermes_core.models import ParsedText

__all__ = ["BareFormat"]

_THINKING = re.compile(r"</?think>")


class BareFormat(MarkedFormat):
    """Calls are the whole of a turn, or follow a marker. A turn that merely begins like calls is text.

    Attributes:
        looks_like_calls: What a turn begins with that was probably meant to be calls; if it is none, the model is told.
    """

    looks_like_calls: re.Pattern[str]

    @abstractmethod
    def read_calls(self, text: str, start: int) -> tuple[list[ToolCall], int]:
        """Read all calls that begin at `start`; gives where they end.

        Raises:
            ValueError: No well-formed ones begin there; the text is one line for the model.
        """

    def parse(self, text: str) -> ParsedText:
        """Read the turn as calls alone, else look for the marker."""
        begin = skip_whitespace(text, _after_thinking(text))
        error = None
        try:
            calls, end = self.read_calls(text, begin)
            if skip_whitespace(text, end) < len(text):
                raise ValueError("text follows the calls")
        except ValueError as caught:
            error = str(caught)
        else:
            return self._found(text, begin, calls)
        parsed = super().parse(text)
        if parsed.calls or parsed.malformed or not self.looks_like_calls.match(text, begin):
            return parsed
        findings = Findings(text)
        findings.reject(begin, len(text), error)
        return findings.parsed()

    def _found(self, text: str, begin: int, calls: Sequence[ToolCall]) -> ParsedText:
        findings = Findings(text)
        findings.keep(0, begin)
        for call in calls:
            findings.add(call)
        return findings.parsed()


def _after_thinking(text: str) -> int:
    """Where the thinking that opens a turn ends: the end of the text if it is not closed, 0 if there is none."""
    mark = _THINKING.search(text)
    if mark and mark.group() == "<think>" and not text[: mark.start()].strip():
        close = text.find("</think>", mark.end())
        return len(text) if close < 0 else close + len("</think>")
    # The chat template opened the thinking, so that only its end was sampled.
    return mark.end() if mark and mark.group() == "</think>" and not text.lstrip().startswith(("{", "[")) else 0

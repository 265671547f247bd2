"""A tool-call format whose prompt the user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.models._tool_prompt import listed_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall, ToolDefinition
    from hermes_core.models._format import ParsedText, ToolCallFormat
    from hermes_core.models._message import Message

__all__ = ["PromptedFormat"]


class PromptedFormat:
    """Calls and results as another format has them; the prompt is a text of one's own.

    Args:
        form: The other format.
        prompt: The text; `{tools}` in it becomes the enabled tools, one line of JSON each.
    """

    def __init__(self, form: ToolCallFormat, prompt: str) -> None:
        self._form = form
        self._prompt = prompt

    @property
    def name(self) -> str:
        """As of the other format."""
        return self._form.name

    def system_prompt(self, tools: Sequence[ToolDefinition]) -> str:
        """The given text."""
        return self._prompt.replace("{tools}", listed_tools(tools))

    def for_tools(self, tools: Sequence[ToolDefinition]) -> PromptedFormat:
        """The other format for these tools, with the given prompt."""
        return PromptedFormat(self._form.for_tools(tools), self._prompt)

    def parse(self, text: str) -> ParsedText:
        """As of the other format."""
        return self._form.parse(text)

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """As of the other format."""
        return self._form.render_turn(content, calls)

    def render_results(self, results: Sequence[Message]) -> str:
        """As of the other format."""
        return self._form.render_results(results)

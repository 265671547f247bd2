"""The contract of a tool-call format: how calls and results look in plain text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from hermes_core.exceptions import ConfigError
from hermes_core.models._message import Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import ToolCall, ToolDefinition
    from hermes_core.models._turn import MalformedCall

__all__ = ["ParsedText", "ToolCallFormat", "plain_messages"]


@dataclass(frozen=True, slots=True)
class ParsedText:
    """What a model's text holds.

    Attributes:
        content: The text without its well-formed calls; malformed ones stay in it, so that the model sees them.
        calls: Well-formed calls, in order.
        malformed: What looked like a call and is none, in order.
    """

    content: str
    calls: tuple[ToolCall, ...] = ()
    malformed: tuple[MalformedCall, ...] = ()


class ToolCallFormat(Protocol):
    """A text form of tool calls. `parse(render_turn(content, calls))` gives the same content and calls back.

    A class that derives from `MarkedFormat` gets scanning, rendering and the prompt, and says how one call looks.
    """

    @property
    def name(self) -> str:
        """As it is registered."""

    def parse(self, text: str) -> ParsedText:
        """Find the calls in a turn, strictly: what is not well-formed is no call. Never raises; linear time."""

    def system_prompt(self, tools: Sequence[ToolDefinition]) -> str:
        """Tell the model which tools there are and how to call them."""

    def for_tools(self, tools: Sequence[ToolDefinition]) -> ToolCallFormat:
        """The format as a conversation with these tools speaks it.

        One that writes values without their types reads them as the tools' schemas say.
        """

    def render_turn(self, content: str, calls: Sequence[ToolCall]) -> str:
        """Write an earlier assistant turn as text.

        Raises:
            ValueError: The format has no words for a call. It has them for all that it parsed itself.
        """

    def render_results(self, results: Sequence[Message]) -> str:
        """Write the `tool` messages that answer one turn as the text of one user message."""


def plain_messages(
    form: ToolCallFormat, messages: Sequence[Message], tools: Sequence[ToolDefinition]
) -> tuple[Message, ...]:
    """Write a conversation with structured calls as one of plain text.

    The format's own prompt opens it (before the text of a given system message), calls become text of their turn, and
    the results of a turn become one user message.

    Raises:
        ConfigError: The format has no words for a call of the conversation.
    """
    told = list(messages)
    if tools:
        given = told.pop(0).content if told and told[0].role == "system" else ""
        prompt = form.system_prompt(tools)
        told.insert(0, Message("system", f"{prompt}\n\n{given}" if given else prompt))
    plain: list[Message] = []
    for is_result, run in groupby(told, key=lambda message: message.role == "tool"):
        if is_result:
            plain.append(Message("user", form.render_results(tuple(run))))
        else:
            plain.extend(_plain_turn(form, message) for message in run)
    return tuple(plain)


def _plain_turn(form: ToolCallFormat, message: Message) -> Message:
    if not message.tool_calls:
        return message
    try:
        text = form.render_turn(message.content, message.tool_calls)
    except ValueError as error:
        raise ConfigError(str(error), hint="continue this conversation in the format that it began with") from None
    return replace(message, content=text, tool_calls=())

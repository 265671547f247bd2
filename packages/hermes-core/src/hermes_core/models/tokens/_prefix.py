"""Whether a chat template keeps earlier turns as they were sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_core.execution import ToolCall
from hermes_core.models._message import Message

if TYPE_CHECKING:
    from hermes_core.models._format import ToolCallFormat
    from hermes_core.models.tokens._tokenizer import Tokenizer

__all__ = ["PrefixCheck", "check_prefix"]

_THINKING = "<think>\nI look.\n</think>\n\n"


@dataclass(frozen=True, slots=True)
class PrefixCheck:
    """What a template does to an earlier turn when the next message comes.

    Attributes:
        tool_turns: It stays as it is when tool results follow.
        user_turns: It stays as it is when a user message follows.
        reason: One line on what is changed, or None.
    """

    tool_turns: bool
    user_turns: bool
    reason: str | None = None

    @property
    def preserving(self) -> bool:
        """Nothing is changed: the prompt of a turn always begins with all that came before."""
        return self.tool_turns and self.user_turns


async def check_prefix(tokenizer: Tokenizer, form: ToolCallFormat) -> PrefixCheck:
    """Render short conversations, with thinking and without, and compare.

    Args:
        tokenizer: The tokenizer with the template.
        form: How calls and results are written.
    """
    call = ToolCall("look", {"at": "x"}, "c1")
    result = Message("tool", '{"success": true}', tool_call_id="c1", name="look")
    turns = {
        "tool results": (form.render_turn("", (call,)), form.render_results((result,))),
        "a user message": ("The answer.", "And now?"),
    }
    broken: dict[str, str] = {}
    for what, (turn, news) in turns.items():
        for thinking in ("", _THINKING):
            if what not in broken and not await _keeps(tokenizer, thinking + turn, news):
                broken[what] = "drops the thinking of" if thinking else "rewrites"
    said = "; ".join(f"{how} a turn before {what}" for what, how in broken.items())
    return PrefixCheck(
        tool_turns="tool results" not in broken,
        user_turns="a user message" not in broken,
        reason=f"the chat template {said}" if said else None,
    )


async def _keeps(tokenizer: Tokenizer, turn: str, news: str) -> bool:
    asked = {"role": "user", "content": "Do it."}
    opening = await tokenizer.render([asked])
    if opening.rstrip().endswith("<think>"):  # the template opens the thinking, so that only the rest is sampled
        turn = turn.removeprefix("<think>\n") if turn.startswith("<think>") else f"</think>\n\n{turn}"
    told = [asked, {"role": "assistant", "content": turn}, {"role": "user", "content": news}]
    return (await tokenizer.render(told)).startswith(opening + turn)

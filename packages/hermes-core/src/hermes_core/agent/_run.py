"""What one run of an agent gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.exceptions import HermesError
    from hermes_core.models import Message
    from hermes_core.trajectory import Outcome, Segment, Step

__all__ = ["AgentRun"]


@dataclass(frozen=True, slots=True)
class AgentRun:
    """How a run of an agent ended, and everything that happened until then.

    Attributes:
        outcome: How it ended.
        messages: The whole conversation, earlier runs of the same agent included.
        steps: The turns of this run with their results; complete up to an error.
        segments: Token sequences of the whole conversation; empty when the engine returns no tokens.
        tool_time_s: Seconds of tool execution.
        error: What ended it, or None.
    """

    outcome: Outcome
    messages: tuple[Message, ...]
    steps: tuple[Step, ...]
    segments: tuple[Segment, ...]
    tool_time_s: float = 0.0
    error: HermesError | None = None

    @property
    def final_response(self) -> str:
        """The content of the last assistant turn, or ""."""
        return self.steps[-1].message.content if self.steps else ""

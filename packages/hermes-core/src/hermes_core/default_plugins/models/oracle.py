"""`oracle`: plays the environment's reference solution through real tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from hermes_core.exceptions import ModelError
from hermes_core.models import AssistantTurn, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models import Conversation, ConversationStart, Message

__all__ = ["OracleConfig", "OracleModel"]


class OracleConfig(BaseModel):
    """The oracle has no settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OracleModel(Model):
    """Says the turns of `Environment.solution`, one after the other.

    It shows that an environment can be solved, and that everything around a model works.
    """

    Config = OracleConfig
    name = "oracle"
    plays_solutions = True

    def __init__(self, config: OracleConfig | None = None) -> None:
        self.config = config or OracleConfig()

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin to play the solution that `start` brings.

        Raises:
            ModelError: It brings none.
        """
        if start.solution is None:
            raise ModelError(
                f"task {start.task_id!r} has no reference solution for the oracle to play",
                hint="the environment does not implement solution(task); choose another model",
            )
        return _PlayedSolution(start.solution)


class _PlayedSolution:
    def __init__(self, turns: tuple[AssistantTurn, ...]) -> None:
        self._turns = iter(turns)

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next turn; after the last one, a final answer that is empty."""
        return next(self._turns, AssistantTurn("", finish_reason="stop"))

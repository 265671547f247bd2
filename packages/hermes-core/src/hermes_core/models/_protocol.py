"""The contract of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from hermes_core.models._hermes_format import HERMES_FORMAT
from hermes_core.models._turn import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from hermes_core.execution import ToolDefinition
    from hermes_core.models._format import ToolCallFormat
    from hermes_core.models._message import Message
    from hermes_core.models._turn import AssistantTurn

__all__ = ["Conversation", "ConversationStart", "Model"]


@dataclass(frozen=True, slots=True)
class ConversationStart:
    """What a model learns before the first turn of a trajectory.

    Attributes:
        trajectory_id: Unique within the run.
        task_id: The task, or "" outside an environment.
        sample_index: 0-based index within the task's group.
        tools: The tools that the model may call.
        sampling: How to sample.
        solution: The environment's reference turns, given only to a model that `plays_solutions`.
    """

    trajectory_id: str
    task_id: str = ""
    sample_index: int = 0
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    solution: tuple[AssistantTurn, ...] | None = None


class Conversation(Protocol):
    """One trajectory's talk with a model; it may keep token history between turns."""

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next assistant turn.

        Args:
            messages: The whole conversation so far. What an earlier call was given is a prefix of it, followed by the
                turn that it returned, unless the caller edited the history: then the model starts a new sequence.
            max_tokens: Most tokens of this turn, where the caller has a budget; the sampling's own maximum holds too.

        Raises:
            ModelError: The endpoint failed, after the model's own retries.
            ContextExceededError: The conversation does not fit.
        """


class Model(Protocol):
    """Something that takes part in conversations.

    An async context manager: what it needs (a server, a connection pool) lives between enter and exit. Subclass it
    to inherit the defaults.
    """

    plays_solutions: bool = False
    """Whether conversations need the environment's reference solution."""

    shorthand: str | None = None
    """The field of its configuration that a name's part after the colon sets: "base_url" for `vllm:http://host:8000`."""

    tool_call_formats: Mapping[str, ToolCallFormat] = {"hermes": HERMES_FORMAT}
    """Text formats of tool calls by name. Hermes sets it to all that are installed before it enters the model."""

    @property
    def name(self) -> str:
        """As it is written into trajectories."""

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin one trajectory's conversation."""

    async def __aenter__(self) -> Self:
        """Acquire what the model needs, and see that it answers.

        Raises:
            ModelUnreachableError: Nothing answers.
        """
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release it."""
        return

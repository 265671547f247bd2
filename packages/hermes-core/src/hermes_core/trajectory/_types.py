"""What a trajectory holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue, ToolCall, ToolResult
    from hermes_core.models import FinishReason, MalformedCall, Message, TurnTokens, Usage

__all__ = ["AGENT_OUTCOMES", "INFRASTRUCTURE_OUTCOMES", "Outcome", "Segment", "Step", "Trajectory", "TurnSpan"]

Outcome = Literal[
    "completed",
    "max_steps",
    "max_tokens",
    "context_exceeded",
    "timed_out",
    "agent_error",
    "model_error",
    "sandbox_error",
    "environment_error",
    "cancelled",
]
AGENT_OUTCOMES: frozenset[Outcome] = frozenset(
    ("completed", "max_steps", "max_tokens", "context_exceeded", "timed_out", "agent_error")
)
"""The agent's own doing: scored."""
INFRASTRUCTURE_OUTCOMES: frozenset[Outcome] = frozenset(
    ("model_error", "sandbox_error", "environment_error", "cancelled")
)
"""Not the agent's doing: retried within a budget, then reported without a reward."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One contiguous token sequence; `ids`, `mask` and `logprobs` are of equal length.

    Attributes:
        ids: Token ids.
        mask: 1 for sampled tokens, 0 for all others.
        logprobs: Natural log probability of each sampled token; 0.0 where `mask` is 0.
    """

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TurnSpan:
    """Where a turn lies: its prompt is `segments[segment].ids[:start]`, its completion `ids[start:end]`."""

    segment: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Step:
    """One assistant turn and what its calls gave back.

    Attributes:
        message: The assistant message.
        results: One result per call, in call order.
        malformed: What looked like a call and was answered with an error.
        finish_reason: Why the turn ended.
        usage: Token counts, if given.
        tokens: Exact tokens of the turn, if the engine returns them.
        span: Where they lie in the trajectory's segments, if that is known.
        metadata: Facts of the model's response.
        model_s: Seconds that the model took.
        tools_s: Seconds that the tool calls took.
    """

    message: Message
    results: tuple[ToolResult, ...] = ()
    malformed: tuple[MalformedCall, ...] = ()
    finish_reason: FinishReason = "unknown"
    usage: Usage | None = None
    tokens: TurnTokens | None = None
    span: TurnSpan | None = field(default=None, compare=False)
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    model_s: float = 0.0
    tools_s: float = 0.0

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of this turn."""
        return self.message.tool_calls

    @property
    def sampled_tokens(self) -> int:
        """How many tokens the model sampled, as far as it says; 0 where it does not."""
        if self.tokens is not None:
            return len(self.tokens.completion_ids)
        return self.usage.completion_tokens if self.usage is not None else 0


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One agent run on one task.

    Attributes:
        task_id: The task's id within its environment.
        sample_index: 0-based index within the task's group.
        outcome: How it ended.
        reward: The score, or None when it was not scored.
        metrics: Numbers of the score, and of the run (tool_calls, malformed_calls, …).
        messages: The whole conversation.
        steps: The assistant's turns with their results.
        segments: Token sequences ready to train on; empty when the engine returns no tokens.
        model: The model's name.
        backend: The sandbox backend's name, or None without a sandbox.
        started_at: Unix time in seconds.
        duration_s: Wall time in seconds.
        error: One line on what went wrong, or None.
        details: What the scorer and the run record besides.
    """

    task_id: str
    sample_index: int
    outcome: Outcome
    reward: float | None
    metrics: Mapping[str, float]
    messages: tuple[Message, ...]
    steps: tuple[Step, ...]
    segments: tuple[Segment, ...]
    model: str
    backend: str | None
    started_at: float
    duration_s: float
    error: str | None = None
    details: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def final_response(self) -> str:
        """The content of the last assistant message, or ""."""
        for message in reversed(self.messages):
            if message.role == "assistant":
                return message.content
        return ""

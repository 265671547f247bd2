"""What a model returns for one turn."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue, ToolCall

__all__ = ["AssistantTurn", "FinishReason", "LogprobsMode", "MalformedCall", "Sampling", "TurnTokens", "Usage"]

FinishReason = Literal["stop", "tool_calls", "length", "content_filter", "unknown"]
LogprobsMode = Literal["raw", "processed", "unknown"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. None leaves a setting to the model's endpoint.

    Attributes:
        temperature: 0 is greedy.
        top_p: Nucleus mass, 0 < p <= 1.
        top_k: Only so many of the likeliest tokens, at least 1.
        min_p: Only tokens at least this likely, the likeliest one being 1; 0 <= p <= 1.
        max_tokens: Most tokens of one turn.
        stop: Strings that end a turn.
        seed: Seed of the sampler, where the engine honours one.
    """

    temperature: float | None = 0.7
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def truncates(self) -> bool:
        """Whether unlikely tokens are cut off, so that what is sampled from is not the tempered distribution."""
        return self.top_p not in (None, 1.0) or self.top_k is not None or bool(self.min_p)

    def within(self, max_tokens: int | None) -> Sampling:
        """The same for a turn of at most so many tokens; None bounds nothing."""
        bounds = [bound for bound in (self.max_tokens, max_tokens) if bound is not None]
        return replace(self, max_tokens=min(bounds, default=None))


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that an endpoint says it used."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class MalformedCall:
    """Text that looked like a tool call and is none.

    Attributes:
        text: What the model wrote, at most 2,000 characters of it.
        error: One line that tells the model what is wrong with it.
    """

    text: str
    error: str


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """The exact tokens of one turn, as the engine reports them.

    Attributes:
        prompt_ids: Every token that the engine was given, in order.
        completion_ids: Every token that it sampled, an end-of-sequence token included.
        logprobs: Natural log probability of each sampled token; as long as `completion_ids`, finite, at most 0.
        logprobs_mode: `processed` when they are of the sampling distribution, `raw` when of the model's own, else
            `unknown`.
        constrained: Decoding was restricted by a grammar or schema, so that the logprobs are not the policy's.
        policy_version: Version of the weights, if known.
        after: The turn whose prompt and completion this prompt begins with, if it was made of them and of ids that a
            tokenizer gave: whoever sets it vouches for that, and nobody compares them again.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    logprobs_mode: LogprobsMode = "unknown"
    constrained: bool = False
    policy_version: str | None = None
    after: TurnTokens | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """What a model said in one turn.

    Attributes:
        content: Text; the tool calls of a text format are taken out of it only if the format does so.
        tool_calls: Well-formed calls, in order. None and no malformed ones: the turn is the final answer.
        malformed: What looked like a call and is none; answered to the model.
        reasoning: Thinking that was returned apart from the content.
        finish_reason: Why the turn ended.
        usage: Token counts, if the endpoint gives any.
        tokens: Exact tokens, if the engine returns them.
        metadata: Further facts for the record (response id, model, created, system_fingerprint, …).
    """

    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    malformed: tuple[MalformedCall, ...] = ()
    reasoning: str | None = None
    finish_reason: FinishReason = "unknown"
    usage: Usage | None = None
    tokens: TurnTokens | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)

"""The contract of an engine that returns the tokens it sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue
    from hermes_core.models._turn import LogprobsMode, Sampling

__all__ = ["Completion", "TokenEngine", "is_neutral"]


@dataclass(frozen=True, slots=True)
class Completion:
    """What was sampled for one prompt.

    Attributes:
        ids: Every sampled token, an end-of-sequence token included.
        logprobs: As long as `ids`.
        finish_reason: `length` when a limit cut it off.
        logprobs_mode: Of which distribution the logprobs are.
        text: Without stop strings and the token that ends the turn; None to decode it from the ids.
        constrained: Decoding was restricted by a grammar or schema.
        policy_version: Version of the weights, if known.
        metadata: Further facts for the record.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    logprobs_mode: LogprobsMode = "unknown"
    text: str | None = None
    constrained: bool = False
    policy_version: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)


class TokenEngine(Protocol):
    """Samples after a prompt of ids."""

    @property
    def name(self) -> str:
        """As errors call it."""

    @property
    def setting(self) -> str:
        """What to change where ids or logprobs are missing or impossible, as a hint."""

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Completion:
        """Sample a completion. Nothing is ever encoded again: what the engine does not return is an error.

        Raises:
            ContextExceededError: The prompt does not fit.
            TokenDataError: The engine returned no exact tokens.
            ModelError: The engine failed.
        """


def is_neutral(sampling: Sampling) -> bool:
    """Whether the sampling distribution is the model's own: temperature 1, nothing cut off."""
    return sampling.temperature == 1.0 and not sampling.truncates

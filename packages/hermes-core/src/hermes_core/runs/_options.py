"""From what a caller says of a run to the options of its rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hermes_core.config import configured
from hermes_core.runs._resources import RolloutOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.agent import AgentLimits
    from hermes_core.models import Sampling

__all__ = ["LimitOverrides", "SamplingOverrides", "rollout_options"]

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LimitOverrides(BaseModel):
    """Fields of `AgentLimits`; what is not set is left to the task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_steps: Count = 50
    """Most assistant turns."""

    max_tokens: Count | None = None
    """Most sampled tokens, in all turns together."""

    tool_time_s: Seconds | None = None
    """Seconds of tool execution in all."""

    delay_s: Seconds = 0.0
    """Seconds to wait between two turns."""


class SamplingOverrides(BaseModel):
    """Fields of `Sampling`; what is not set is left to the task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: Seconds | None = None
    """0 is greedy."""

    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus mass."""

    top_k: Count | None = None
    """Only so many of the likeliest tokens."""

    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Only tokens at least this likely, the likeliest one being 1."""

    max_tokens: Count | None = None
    """Most tokens of one turn."""

    stop: tuple[str, ...] = ()
    """Strings that end a turn."""

    seed: int | None = None
    """Seed of the sampler."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one(cls, given: object) -> object:
        return (given,) if isinstance(given, str) and not given.startswith("[") else given


def rollout_options(
    *,
    toolsets: Sequence[str] | None = None,
    limits: AgentLimits | Mapping[str, object] | None = None,
    sampling: Sampling | Mapping[str, object] | None = None,
    deadline_s: float | None = None,
) -> RolloutOptions:
    """Validate what a run decides; arguments as for `Hermes.run`.

    Raises:
        ConfigError: A field is unknown or a value is not valid.
    """
    return RolloutOptions(
        toolsets=None if toolsets is None else tuple(toolsets),
        limits=_given(LimitOverrides, limits, "limits") if isinstance(limits, Mapping) else limits,
        sampling=_given(SamplingOverrides, sampling, "sampling") if isinstance(sampling, Mapping) else sampling,
        deadline_s=deadline_s,
    )


def _given(model: type[BaseModel], values: Mapping[str, object], what: str) -> Mapping[str, object] | None:
    return configured(model, values, what=what).model_dump(exclude_unset=True) or None

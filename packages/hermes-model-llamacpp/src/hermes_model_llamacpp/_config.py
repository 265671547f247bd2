"""Settings of `local`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["LocalConfig"]


class LocalConfig(BaseModel):
    """Settings of `local`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = None
    """A GGUF file; by default the one that `hermes models pull` brought for `preset`."""

    preset: str = "smollm2"
    """Name of a model that `hermes models pull` knows; not used when `path` is given."""

    context: int = Field(default=4096, ge=256)
    """Tokens of one trajectory, prompt and completion together."""

    parallel: int = Field(default=4, ge=1, le=256)
    """Turns that are sampled at once; further ones wait in order. Each costs memory for `context` tokens."""

    threads: int | None = Field(default=None, ge=1)
    """Threads that compute; by default one for each usable core."""

    max_tokens: int = Field(default=256, ge=16)
    """Most tokens of one turn, where the run's sampling does not say."""

    forced_calls: int = Field(default=1, ge=0)
    """How many turns of a trajectory, from its first on, must be a tool call; without tools none."""

    constrain: bool = True
    """Whether a call that the model begins by itself in a later turn is held to its tool's schema."""

    prompt: Literal["short", "full"] = "short"
    """How tools are told: one line each (small models, small contexts), or the format's own prompt."""

    system_prompt: str | None = None
    """Instead of that prompt; `{tools}` in it becomes the tools, one line of JSON each. What the environment says
    follows it."""

    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds after which a turn that is being sampled counts as hung."""

    log: Path | None = None
    """File that takes llama.cpp's own log, appended; by default only its last lines are kept, for error messages."""

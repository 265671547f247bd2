"""Settings of `arithmetic`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ArithmeticConfig"]


class ArithmeticConfig(BaseModel):
    """Settings of `arithmetic`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=3, ge=1, le=6)
    """Operations in each problem."""

    max_number: int = Field(default=999, ge=10, le=10_000)
    """Largest number in a problem's text."""

    require_terminal: bool = True
    """Whether a right answer counts only if at least one terminal call of the trajectory succeeded."""

    toolsets: tuple[str, ...] = ("terminal",)
    """Toolsets that the agent gets."""

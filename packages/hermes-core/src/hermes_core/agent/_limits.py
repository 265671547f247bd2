"""Limits of one trajectory's agent."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AgentLimits"]


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """When an agent must stop.

    Attributes:
        max_steps: Most assistant turns.
        max_tokens: Most tokens that the model samples, in all turns together; the last turn is cut at it. Needs a model
            whose turns say how many they are; those that sample nothing (`oracle`, `scripted`) never reach it.
        tool_time_s: Seconds of tool execution in all; waiting for leases, queues or the model does not count.
        delay_s: Seconds to wait between two turns.
    """

    max_steps: int = 50
    max_tokens: int | None = None
    tool_time_s: float | None = None
    delay_s: float = 0.0

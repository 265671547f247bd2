"""What a run sets over the limits and the sampling of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from hermes_core.agent import AgentLimits
    from hermes_core.models import Sampling

__all__ = ["overridden", "recorded"]

Settings = TypeVar("Settings", "AgentLimits", "Sampling")


def overridden(own: Settings, over: Settings | Mapping[str, object] | None) -> Settings:
    """The settings in force: a task's own, with what the run sets over them."""
    if over is None:
        return own
    return replace(own, **cast("Any", over)) if isinstance(over, Mapping) else over


def recorded(over: Settings | Mapping[str, object] | None) -> dict[str, Any]:
    """What is set, as JSON knows it."""
    if over is None:
        return {}
    fields = over if isinstance(over, Mapping) else asdict(over)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

"""Runs: many rollouts, written down so that a killed run can be finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.runs._execute import execute_run
from hermes_core.runs._resources import Leasing, Resources, RolloutOptions
from hermes_core.runs._rollout import rollout_with_retries
from hermes_core.runs._run import Run, default_directory
from hermes_core.runs._statistics import RunStatistics
from hermes_core.runs._stream import stream_rollouts
from hermes_core.runs._toolsets import enabled_tools
from hermes_core.runs._work import Work

if TYPE_CHECKING:
    from hermes_core.runs._config import Component, RunConfig, component
    from hermes_core.runs._description import describe_run
    from hermes_core.runs._directory import RunDirectory
    from hermes_core.runs._options import rollout_options

__all__ = [
    "Component",
    "Leasing",
    "Resources",
    "RolloutOptions",
    "Run",
    "RunConfig",
    "RunDirectory",
    "RunStatistics",
    "Work",
    "component",
    "default_directory",
    "describe_run",
    "enabled_tools",
    "execute_run",
    "rollout_options",
    "rollout_with_retries",
    "stream_rollouts",
]


def __getattr__(name: str) -> object:
    # These need pydantic, which what only makes rollouts does not have to import.
    if name in ("Component", "RunConfig", "component"):
        from hermes_core.runs import _config

        return getattr(_config, name)
    if name == "describe_run":
        from hermes_core.runs._description import describe_run

        return describe_run
    if name == "RunDirectory":
        from hermes_core.runs._directory import RunDirectory

        return RunDirectory
    if name == "rollout_options":
        from hermes_core.runs._options import rollout_options

        return rollout_options
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

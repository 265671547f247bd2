"""From what a run is made of to what `run.json` says of it."""

from __future__ import annotations

import time
from importlib import metadata
from typing import TYPE_CHECKING

from hermes_core.runs._config import RunConfig, component
from hermes_core.runs._overrides import recorded

if TYPE_CHECKING:
    from hermes_core.runs._work import Work
    from hermes_core.sandbox import SandboxBackend

__all__ = ["describe_run"]


def describe_run(work: Work, backend: SandboxBackend | None) -> RunConfig:
    """Describe a run for the record; nothing secret is in it."""
    options = work.options
    return RunConfig(
        run_id=work.run_id,
        environment=component(work.environment.name, work.environment.config),
        model=component(work.model.name, getattr(work.model, "config", None)),
        backend=component(backend.name, backend.config) if backend else None,
        split=work.split,
        seed=work.seed,
        group_size=work.group_size,
        tasks=work.tasks,
        concurrency=work.concurrency,
        toolsets=options.toolsets,
        limits=recorded(options.limits),
        sampling=recorded(options.sampling),
        sandbox={"isolation": list(backend.capabilities.isolation)} if backend else {},
        versions={d.name: d.version for d in metadata.distributions() if d.name.startswith("hermes-")},
        started_at=time.time(),
    )

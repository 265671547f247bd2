"""What runs of the environment of sums need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hermes_core.default_plugins.models import OracleModel
from hermes_core.execution import DefaultBatchExecutor
from hermes_core.runs import Component, Resources, RolloutOptions, RunConfig, Work
from hermes_core.testing import SumsEnvironment, sums_tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_core.environments import Environment
    from hermes_core.models import Model


@pytest.fixture
def resources() -> Resources:
    return Resources(DefaultBatchExecutor(), sums_tools)


@pytest.fixture
def sums() -> SumsEnvironment:
    return SumsEnvironment()


@pytest.fixture
def work() -> Callable[..., Work]:
    """Makes four tasks in groups of two, unless told otherwise."""

    def make(environment: Environment | None = None, model: Model | None = None, **fields: object) -> Work:
        settings: dict[str, object] = {
            "tasks": 4,
            "group_size": 2,
            "concurrency": 3,
            "split": "train",
            "seed": 0,
            "options": RolloutOptions(retry_delay_s=0.0),
            "run_id": "run",
            **fields,
        }
        return Work(environment or SumsEnvironment(), model or OracleModel(), **settings)  # type: ignore[arg-type]

    return make


@pytest.fixture
def run_config() -> Callable[..., RunConfig]:
    """Describes the same."""

    def describe(**fields: object) -> RunConfig:
        settings: dict[str, object] = {
            "run_id": "run",
            "environment": Component(name="sums", config={"count": None}),
            "model": Component(name="oracle"),
            "tasks": 4,
            "group_size": 2,
            "started_at": 1.0,
            **fields,
        }
        return RunConfig.model_validate(settings)

    return describe

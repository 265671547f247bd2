"""Runs for which no slot can be had: at all, or any more."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core import Hermes
from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.environments import Environment, SandboxRequest, Score, Task
from hermes_core.exceptions import BackendUnavailableError, NoCapacityError, SandboxError
from hermes_core.sandbox import PassingBackend, Sandbox, SandboxSpec
from hermes_core.testing import SumsConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from hermes_core.environments import Split
    from hermes_core.execution import Slot
    from hermes_core.models import AssistantTurn
    from hermes_core.trajectory import Trajectory

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


class Idle(Environment):
    """Tasks that need a slot and nothing else."""

    Config = SumsConfig
    name = "idle"

    def __init__(self, backend: Refusing | None = None) -> None:
        self._backend = backend

    @property
    def config(self) -> SumsConfig:
        return SumsConfig()

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        for number in count():
            yield Task(f"t{number}", "wait", sandbox=SandboxRequest())

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        if self._backend is not None and task.task_id == "t2":
            await self._backend.lose()
        return Score(1.0)

    def solution(self, task: Task) -> tuple[AssistantTurn, ...]:
        return ()


class Refusing(PassingBackend):
    """Starts some sandboxes, which are lost soon, and then no more."""

    def __init__(self, error: SandboxError, starts: int) -> None:
        super().__init__(LocalBackend())
        self._error = error
        self._starts = starts
        self.sandbox: Sandbox | None = None

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        self._starts -= 1
        if self._starts < 0:
            raise self._error
        self.sandbox = await super().start(spec, owner, name)
        return self.sandbox

    async def lose(self) -> None:
        """End what was started, as a machine does that fails."""
        if self.sandbox is not None:
            await self.sandbox.stop()


ERRORS = [NoCapacityError("the cluster is full", hint="add nodes"), BackendUnavailableError("no engine")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_run_that_never_had_a_slot_could_not_start(error: SandboxError, tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with Hermes(backend=Refusing(error, starts=0)) as hermes:
            with pytest.raises(type(error), match=error.message) as raised:
                await hermes.run(Idle(), model="oracle", tasks=20, group_size=2, out=tmp_path / "run")
    assert raised.value.hint == error.hint
    assert not (tmp_path / "run/failures.jsonl").read_text()


async def test_a_run_that_loses_its_last_sandbox_has_failures(tmp_path: Path) -> None:
    backend = Refusing(BackendUnavailableError("no engine"), starts=1)
    with anyio.fail_after(60):
        async with Hermes(backend=backend) as hermes:
            run = await hermes.run(Idle(backend), model="oracle", tasks=5, concurrency=1, out=tmp_path / "run")
    assert run.statistics.outcomes == {"completed": 3, "sandbox_error": 2}
    assert run.statistics.failures == 2
    assert "no engine" in (tmp_path / "run/failures.jsonl").read_text()

"""Who is to blame: what an agent does to its slot ends as the agent's outcome, and never buys another try."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hermes_core.default_plugins.models import ScriptedModel
from hermes_core.default_plugins.models.scripted import ScriptedCall, ScriptedConfig, ScriptedTurn
from hermes_core.default_plugins.tools import terminal
from hermes_core.environments import Environment, SandboxRequest, Score, Task
from hermes_core.execution import Slot
from hermes_core.runs import Resources, RolloutOptions, rollout_with_retries
from hermes_core.testing import SumsConfig
from hermes_core.trajectory import AGENT_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.hermes_core.conftest import OpenRig

    from hermes_core.environments import Split
    from hermes_core.slots import LeaseRequest
    from hermes_core.trajectory import Trajectory

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

LIMITS = {"memory_bytes": 96 << 20, "processes": 24, "workspace_bytes": 32 << 20, "file_bytes": 16 << 20}
TASK = Task("t0", "answer 42", sandbox=SandboxRequest(limits=LIMITS))
PYTHON = "python3 -c '{}'"

HOSTILITIES = {
    "a memory bomb": PYTHON.format("x = []\nwhile True: x.append(bytearray(1 << 22))"),
    "a memory bomb in files": "for i in 1 2 3; do head -c 200000000 /dev/zero > /dev/shm/$i; done",
    # Forks that fail cost the kernel's memory, which it frees in its own time: without a pause that limit is hit too.
    "a fork bomb": PYTHON.format("import os, time\nwhile True:\n try: os.fork()\n except OSError: time.sleep(0.05)"),
    "a disk bomb": "i=0; while :; do i=$((i+1)); head -c 9000000 /dev/zero > f$i; sleep 0.05; done",
    "a kill of everything": "kill -9 -1",
    "a kill of PID 1": "kill -9 1; kill -SEGV 1; kill -STOP 1",
    "daemons": "for i in 1 2 3 4; do setsid -f sh -c \"trap '' TERM; while :; do sleep 1; done\"; done",
    "a flood": "head -c 500000000 /dev/zero; head -c 500000000 /dev/zero >&2",
    "a FIFO": "mkfifo answer",
    "a device": "ln -s /dev/zero answer",
    "a folder": "mkdir answer",
    "an endless file": "ln -s /proc/self/mem answer",
    "a link to nowhere": "ln -s answer answer",
    "no JSON": "head -c 3000000 /dev/urandom > answer",
    "deep JSON": PYTHON.format('open("answer", "w").write("[" * 100000)'),
    "a workspace without rights": "chmod 000 /workspace",
    "a workspace without end": "n=0; while [ $n -lt 400 ]; do mkdir -p d && cd d; n=$((n+1)); done",
}


class Trusting(Environment):
    """A scorer that trusts the agent more than it should: it reads a file of the agent's, and believes its form."""

    Config = SumsConfig
    name = "trusting"

    def __init__(self, *, grades: bool) -> None:
        self._grades = grades

    @property
    def config(self) -> SumsConfig:
        return SumsConfig()

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        yield TASK

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        assert slot is not None
        if not self._grades:
            text = (await slot.read_file("answer", max_bytes=1 << 20)).decode() if trajectory.steps[0].calls else "0"
            return Score(float(json.loads(text) == 42))
        grading = await slot.grade({"expected": "42\n"})
        same = await grading.exec(f"timeout 5 cmp -s expected {grading.workspace}/answer")
        return Score(float(same.exit_code == 0))


async def attempt(rig: OpenRig, command: str, *, grades: bool) -> Trajectory:
    call = ScriptedCall(name="terminal", arguments={"command": command, "timeout": 3})
    model = ScriptedModel(ScriptedConfig(turns=(ScriptedTurn(tool_calls=(call,)), "done")))
    async with rig(slots=2) as opened:

        async def acquire(request: LeaseRequest) -> Slot:
            return Slot(await opened.pool.lease(request), opened.pool, opened.executor, {"terminal": terminal})

        resources = Resources(opened.executor, lambda names: {"terminal": terminal}, acquire)
        return await rollout_with_retries(
            resources, Trusting(grades=grades), TASK, model, options=RolloutOptions(retry_delay_s=0.0)
        )


@pytest.mark.parametrize("grades", [False, True], ids=["reading", "grading"])
@pytest.mark.parametrize("command", HOSTILITIES.values(), ids=HOSTILITIES.keys())
async def test_hostility_is_the_agents_own_failure(rig: OpenRig, command: str, grades: bool) -> None:
    trajectory = await attempt(rig, command, grades=grades)
    assert trajectory.outcome in AGENT_OUTCOMES, trajectory.error
    assert trajectory.reward == 0.0
    assert trajectory.metrics["infrastructure_faults"] == 0


@pytest.mark.parametrize("grades", [False, True], ids=["reading", "grading"])
async def test_honesty_is_rewarded(rig: OpenRig, grades: bool) -> None:
    trajectory = await attempt(rig, "echo 42 > answer", grades=grades)
    assert (trajectory.outcome, trajectory.reward) == ("completed", 1.0)
    assert trajectory.details["isolation"] == "namespaces"


@pytest.mark.parametrize(
    ("hostility", "limit"),
    [("a memory bomb", "memory"), ("a fork bomb", "processes"), ("a disk bomb", "workspace")],
)
async def test_the_agent_and_the_record_are_told_which_limit(rig: OpenRig, hostility: str, limit: str) -> None:
    trajectory = await attempt(rig, HOSTILITIES[hostility], grades=True)
    ((result,),) = [step.results for step in trajectory.steps if step.results]
    told = f"{result.output} {result.error} {trajectory.details.get('limit')}"
    assert limit in told

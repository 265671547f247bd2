from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.default_plugins.models import OracleModel
from hermes_core.exceptions import RunDirectoryError, UsageError
from hermes_core.observers import Observer, ObserverHub
from hermes_core.runs import Resources, RolloutOptions, Run, RunDirectory, execute_run
from hermes_core.testing import SumsEnvironment
from hermes_core.trajectory import Trajectory, read_trajectories

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hermes_core.environments import Score, Task
    from hermes_core.execution import Slot
    from hermes_core.models import Conversation, ConversationStart
    from hermes_core.observers import RunFinished, RunStarted
    from hermes_core.runs import RunConfig, Work


def keys(path: Path) -> list[tuple[str, int]]:
    return [(t.task_id, t.sample_index) for t in read_trajectories(path)]


WANTED = [(f"train-0-{task}", sample) for task in range(4) for sample in range(2)]


@pytest.mark.anyio
async def test_a_run_and_its_files(
    resources: Resources, work: Callable[..., Work], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with RunDirectory.open(tmp_path / "a" / "out", run_config()) as directory:
        run = await execute_run(resources, work(), directory)
    assert sorted(keys(run.directory)) == WANTED
    statistics = run.statistics
    assert (statistics.trajectories, statistics.failures, statistics.mean_reward) == (8, 0, 1.0)
    assert statistics.outcomes == {"completed": 8}
    assert statistics.complete
    assert statistics.tool_calls == 8
    assert statistics.metrics["length"] == 1.0
    assert json.loads((run.directory / "statistics.json").read_text()) == statistics.to_dict()
    assert json.loads((run.directory / "run.json").read_text())["environment"]["name"] == "sums"
    assert (run.directory / "failures.jsonl").read_bytes() == b""
    assert [t.reward async for t in run.trajectories()] == [1.0] * 8
    assert [t async for t in run.failures()] == []
    assert Run.load(run.directory) == run


class Stumbling(OracleModel):
    """Fails on some tasks for good."""

    def __init__(self, *tasks: str) -> None:
        super().__init__()
        self._tasks = tasks

    def conversation(self, start: ConversationStart) -> Conversation:
        if start.task_id in self._tasks:
            raise RuntimeError("down")
        return super().conversation(start)


@pytest.mark.anyio
async def test_failures_are_written_apart_and_tried_again(
    resources: Resources, work: Callable[..., Work], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with RunDirectory.open(tmp_path, run_config()) as directory:
        run = await execute_run(resources, work(model=Stumbling("train-0-1")), directory)
    assert (run.statistics.trajectories, run.statistics.failures) == (6, 2)
    assert run.statistics.outcomes == {"completed": 6, "model_error": 2}
    assert run.statistics.infrastructure_faults == 6
    assert run.statistics.faults_by_task == {"train-0-1": 6}
    assert [(t.reward, t.outcome) async for t in run.failures()] == [(None, "model_error")] * 2
    with RunDirectory.open(tmp_path, run_config(), resume=True) as directory:
        run = await execute_run(resources, work(), directory)
    assert (run.statistics.trajectories, run.statistics.failures) == (8, 0)
    assert sorted(keys(tmp_path)) == WANTED
    assert [t async for t in run.failures()] == []


@pytest.mark.anyio
async def test_a_limit_leaves_the_rest_to_resume(
    resources: Resources, work: Callable[..., Work], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    for limit, expected, complete in ((3, 3, False), (None, 8, True), (None, 8, True)):
        with RunDirectory.open(tmp_path, run_config(limit=limit), resume=True) as directory:
            run = await execute_run(resources, work(limit=limit), directory)
        assert (run.statistics.trajectories, run.statistics.complete) == (expected, complete)
    assert sorted(keys(tmp_path)) == WANTED


@pytest.mark.anyio
async def test_a_cancelled_run_keeps_what_was_done(
    resources: Resources,
    work: Callable[..., Work],
    run_config: Callable[..., RunConfig],
    sums: SumsEnvironment,
    tmp_path: Path,
) -> None:
    with RunDirectory.open(tmp_path, run_config(tasks=None)) as directory:
        with anyio.move_on_after(0.3) as scope:
            await execute_run(resources, work(tasks=None), directory)
    assert scope.cancelled_caught
    done = keys(tmp_path)
    assert len(done) == len(set(done)) > 0
    statistics = Run.load(tmp_path).statistics
    assert statistics.trajectories == len(done)
    assert not statistics.complete
    tasks = max(int(task.rpartition("-")[2]) for task, _ in done) + 2
    with RunDirectory.open(tmp_path, run_config(tasks=tasks), resume=True) as directory:
        run = await execute_run(resources, work(tasks=tasks), directory)
    assert Counter(keys(tmp_path)) == Counter((f"train-0-{t}", s) for t in range(tasks) for s in range(2))
    assert run.statistics.trajectories == 2 * tasks


@pytest.mark.anyio
async def test_observers_hear_of_the_run(
    resources: Resources, work: Callable[..., Work], run_config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    class Watching(Observer):
        def __init__(self) -> None:
            self.seen: list[object] = []

        async def run_started(self, event: RunStarted) -> None:
            self.seen.append((event.run_id, event.total, event.done))

        async def run_finished(self, event: RunFinished) -> None:
            self.seen.append(event.statistics["trajectories"])

    watching = Watching()
    async with ObserverHub([watching]) as hub:
        watched = Resources(resources.executor, resources.tools, observers=hub)
        with RunDirectory.open(tmp_path, run_config()) as directory:
            await execute_run(watched, work(), directory)
    assert watching.seen == [("run", 8, 0), 8]


@pytest.mark.anyio
async def test_toolsets_are_checked_before_anything_starts(
    resources: Resources,
    work: Callable[..., Work],
    run_config: Callable[..., RunConfig],
    sums: SumsEnvironment,
    tmp_path: Path,
) -> None:
    sums.toolsets = ("sums",)
    with RunDirectory.open(tmp_path, run_config()) as directory:
        with pytest.raises(UsageError, match="nap"):
            await execute_run(resources, work(sums, options=RolloutOptions(toolsets=("naps",))), directory)
    assert not sums.pulled


@pytest.mark.anyio
async def test_memory_does_not_grow_with_the_run(
    resources: Resources,
    work: Callable[..., Work],
    run_config: Callable[..., RunConfig],
    sums: SumsEnvironment,
    tmp_path: Path,
) -> None:
    class Forgetting(SumsEnvironment):
        async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
            score = await super().score(task, slot, trajectory, setup)
            self.scored.clear()
            return score

    with RunDirectory.open(tmp_path, run_config(tasks=200, group_size=4)) as directory:
        run = await execute_run(resources, work(Forgetting(), tasks=200, group_size=4, concurrency=64), directory)
    assert run.statistics.trajectories == 800
    gc.collect()
    assert sum(isinstance(each, Trajectory) for each in gc.get_objects()) < 10


RUN_FOR_EVER = """
import signal
import sys
import anyio
from hermes_core.default_plugins.models import OracleModel
from hermes_core.execution import DefaultBatchExecutor
from hermes_core.runs import Component, Resources, RolloutOptions, RunConfig, RunDirectory, Work, execute_run
from hermes_core.testing import SumsConfig, SumsEnvironment, sums_tools

async def main():
    out, tasks = sys.argv[1], int(sys.argv[2])
    environment = SumsEnvironment(SumsConfig(nap_s=0.03))
    work = Work(environment, OracleModel(), tasks, 2, 8, "train", 0, RolloutOptions(), "r")
    config = RunConfig(run_id="r", environment=Component(name="sums"), model=Component(name="oracle"), group_size=2)
    with RunDirectory.open(out, config, resume=True) as directory:
        await execute_run(Resources(DefaultBatchExecutor(), sums_tools), work, directory)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
anyio.run(main)
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_finished_by_resuming_it(tmp_path: Path, stop: signal.Signals) -> None:
    out, tasks = tmp_path / "out", 150
    command = [sys.executable, "-c", RUN_FOR_EVER, str(out), str(tasks)]
    file = out / "trajectories.jsonl"
    for lines in (5, 40):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ) as process:
            while not file.exists() or file.read_bytes().count(b"\n") < lines:
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(stop)
            process.wait(60)
        assert file.read_bytes().count(b"\n") < 2 * tasks
        if stop == signal.SIGINT:
            assert Run.load(out).statistics.trajectories == len(keys(out))
    subprocess.run(command, check=True)
    assert Counter(keys(out)) == Counter((f"train-0-{t}", s) for t in range(tasks) for s in range(2))
    assert Run.load(out).statistics.trajectories == 2 * tasks


def test_a_folder_in_use_is_refused(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path, run_config()):
        with pytest.raises(RunDirectoryError, match="in use"):
            RunDirectory.open(tmp_path, run_config(), resume=True)
    RunDirectory.open(tmp_path, run_config(), resume=True).close()

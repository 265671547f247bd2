"""An agent that dies: its tasks outlive it, and the next process of the agent takes them over."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from tests.stand_ins.nomad_jobs import shell

if TYPE_CHECKING:
    from tests.stand_ins.nomad.fixtures import RunningAgent, RunningStandIn

    Running = RunningAgent | RunningStandIn


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_tasks_outlive_the_agent(killable: Running, number: signal.Signals) -> None:
    cluster = killable.cluster
    sleeping, waiting = "echo $$; exec sleep 1000", "trap 'exit 4' USR1; echo $$; while :; do sleep 0.05; done"
    jobs = [shell(sleeping), shell(sleeping), shell(waiting)]
    for job in jobs:
        cluster.register(job)
    started = [cluster.allocation(job["ID"], "running") for job in jobs]
    pids = [int(cluster.eventually(lambda: cluster.logs(one["ID"]))) for one in started]  # noqa: B023
    killable.kill(number)
    for pid in pids:
        os.kill(pid, 0)
    os.kill(pids[1], signal.SIGKILL)  # while nobody looks
    os.kill(pids[2], signal.SIGUSR1)
    killable.start()
    again = [
        cluster.allocation(job["ID"], status) for job, status in zip(jobs, ("running", "failed", "failed"), strict=True)
    ]
    assert [one["ID"] for one in again] == [one["ID"] for one in started]
    said = [[event["DisplayMessage"] for event in one["TaskStates"]["main"]["Events"]] for one in again]
    assert said[0].count("Task started by client") == 1
    assert "Exit Code: 137, Signal: 9" in said[1]
    assert "Exit Code: 4" in said[2]
    cluster.purge(jobs[0]["ID"])
    cluster.eventually(lambda: not os.path.exists(f"/proc/{pids[0]}"))

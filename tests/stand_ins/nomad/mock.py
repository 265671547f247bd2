"""Allocations that are made without being placed, and do nothing but change: many and quickly."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from . import jobs
from .documents import Doc, now
from .placement import Place, no_metrics
from .scheduler import new_allocation
from .task_states import TaskState, event

if TYPE_CHECKING:
    from .agent import Agent

__all__ = ["Mock"]

STEP = 0.02
"""Seconds between two rounds of changes."""


def mock_job(number: int) -> Doc:
    """Write a job like that of a sandbox."""
    group = {
        "Name": "sandbox",
        "Networks": [{"Mode": "host", "DynamicPorts": [{"Label": "rpc"}]}],
        "RestartPolicy": {"Attempts": 0},
        "ReschedulePolicy": {"Attempts": 0},
        "Tasks": [{"Name": "daemon", "Driver": "mock", "Resources": {"CPU": 1, "MemoryMB": 10}}],
        "EphemeralDisk": {"SizeMB": 101},
    }
    meta = {"stand_in": "made", "number": str(number)}
    return jobs.canonical({"ID": f"mock-{number}", "Type": "batch", "Meta": meta, "TaskGroups": [group]})


class Mock:
    """Makes such allocations, and changes them at a rate."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._allocations: list[Doc] = []
        self.rate = 0.0
        """Changes a second."""
        self.changes = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._allocations)

    def make(self, count: int) -> None:
        """Make so many more, each of a job of its own, on the first node, whatever it has left."""
        state = self._agent.state
        node = next(iter(state.tables["nodes"].values()))
        for number in range(self.count, self.count + count):
            job = mock_job(number)
            group = job["TaskGroups"][0]
            address = node["NodeResources"]["Networks"][0]["IP"]
            port = {"Label": "rpc", "Value": 40000 + number % 20000, "HostIP": address}
            with state.change("JobRegistered") as transaction:
                job |= {"Status": "running", "JobModifyIndex": transaction.index, "SubmitTime": now()}
                transaction.put("jobs", job)
            place = Place(node, [port])
            allocation = new_allocation(job, group, f"mock-{number}.sandbox[0]", place, no_metrics(), None)
            task = TaskState()
            for kind in ("Received", "Task Setup", "Started"):
                task.tell(event(kind))
            task.become("running")
            allocation |= {"ClientStatus": "running", "TaskStates": {"daemon": task.doc}, "EvalID": ""}
            with state.change("PlanResult") as transaction:
                transaction.put("allocations", allocation)
            self._allocations.append(allocation)

    async def run(self) -> None:
        """Change them in turn, for ever."""
        turns = itertools.count()
        due = 0.0
        while True:
            await asyncio.sleep(STEP)
            due = min(due + self.rate * STEP, 1000.0)
            changing = int(due)
            due -= changing
            if not changing or not self._allocations:
                continue
            known = self._agent.state.tables["allocations"]
            with self._agent.state.change("AllocationUpdated") as transaction:
                for turn in itertools.islice(turns, changing):
                    allocation = self._allocations[turn % self.count]
                    if allocation["ID"] not in known:
                        continue  # its job was purged
                    TaskState(allocation["TaskStates"]["daemon"]).tell(event("Driver", "mock change"))
                    transaction.put("allocations", allocation)
                    self.changes += 1

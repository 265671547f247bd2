"""One allocation on its node: its folder, its tasks, its status."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .alloc_dir import AllocDir
from .task_runner import Surroundings, TaskRunner
from .task_states import TaskState, event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .documents import Doc
    from .drivers import Driver

__all__ = ["AllocationRunner", "client_status"]


def client_status(states: list[Doc]) -> tuple[str, str]:
    """Sum up the states of an allocation's tasks."""
    if any(state["State"] == "dead" and state["Failed"] for state in states):
        return "failed", "Failed tasks"
    if any(state["State"] == "running" for state in states):
        return "running", "Tasks are running"
    if any(state["State"] == "pending" for state in states):
        return "pending", "No tasks have started"
    return "complete", "All tasks have completed"


class AllocationRunner:
    """Runs the tasks of one allocation."""

    def __init__(
        self,
        allocation: Doc,
        node: Doc,
        folder: Path,
        drivers: dict[str, Driver],
        variable: Callable[[Doc, str, Doc], dict[str, str] | None],
        changed: Callable[[Doc], None],
        keep: Callable[[str, Doc | None], None],
        slow_failures: float,
    ) -> None:
        self.allocation = allocation
        self.folder = AllocDir(folder)
        group = next(one for one in allocation["Job"]["TaskGroups"] if one["Name"] == allocation["TaskGroup"])
        states = allocation["TaskStates"] or {}
        self.tasks: dict[str, TaskRunner] = {}
        for task in group["Tasks"]:
            around = Surroundings(
                allocation,
                node,
                self.folder.task(task["Name"]),
                lambda path, spec: variable(allocation, path, spec),
                self._changed,
                lambda name, handle: keep(f"{allocation['ID']}/{name}", handle),
                slow_failures,
            )
            state = TaskState(states[task["Name"]]) if task["Name"] in states else None
            self.tasks[task["Name"]] = TaskRunner(task, drivers[task["Driver"]], around, state)
        self._tell = changed
        self._ending: asyncio.Task[None] | None = None
        self.lost = False
        self.ended = asyncio.Event()

    def _changed(self) -> None:
        if not self.lost:
            self._tell(self.allocation)

    def write(self) -> None:
        """Write the states of the tasks into the allocation."""
        self.allocation["TaskStates"] = {name: runner.state.doc for name, runner in self.tasks.items()}
        status, description = client_status([runner.state.doc for runner in self.tasks.values()])
        self.allocation |= {"ClientStatus": status, "ClientDescription": description}

    async def run(self) -> None:
        """Run all tasks to their end; when one fails, the others are ended."""
        try:
            await self._run()
        finally:
            self.ended.set()

    async def _run(self) -> None:
        self.folder.build()
        running = {asyncio.ensure_future(runner.run()): runner for runner in self.tasks.values()}
        pending = set(running)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
                runner = running[future]
                if runner.state.doc["Failed"]:
                    said = event("Sibling Task Failed", f'Task\'s sibling "{runner.name}" failed')
                    self._end_others(runner, said)
                elif runner.spec["Leader"]:
                    self._end_others(runner, event("Leader Task Dead", "Leader Task in Group dead"))

    def _end_others(self, ended: TaskRunner, said: Doc) -> None:
        others = [runner for runner in self.tasks.values() if runner is not ended]
        self._ending = asyncio.ensure_future(kill_all(others, said))

    async def kill(self) -> None:
        """End all tasks."""
        await kill_all(list(self.tasks.values()), None)

    async def vanish(self) -> None:
        """End all tasks as if their machine were gone."""
        self.lost = True
        await asyncio.gather(*(runner.vanish() for runner in self.tasks.values()))

    def wake(self) -> None:
        """Let templates look at the variables again."""
        for runner in self.tasks.values():
            runner.wakened.set()


async def kill_all(runners: list[TaskRunner], said: Doc | None) -> None:
    """End tasks, all at the same time."""
    await asyncio.gather(*(runner.kill(happened=said) for runner in runners))

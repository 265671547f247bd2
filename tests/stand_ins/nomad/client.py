"""The client side of all simulated nodes: it runs what is placed on them, and reports what becomes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .allocation_runner import AllocationRunner
from .state import State, key_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .documents import Doc
    from .drivers import Driver
    from .options import Options
    from .scheduler import Scheduler
    from .state import Transaction

__all__ = ["Client"]

REPORT = 0.02
"""Seconds in which changes are gathered into one update."""

TERMINAL = ("complete", "failed", "lost")


class Client:
    """Runs allocations."""

    def __init__(self, options: Options, state: State, drivers: dict[str, Driver]) -> None:
        self._options = options
        self._state = state
        self._drivers = drivers
        self._dirty: dict[str, Doc] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._lost: set[str] = set()
        self.runners: dict[str, AllocationRunner] = {}
        self.scheduler: Scheduler

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do something in the background."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "in the background", "exception": error})

    def resume(self) -> None:
        """Take over what ran under an earlier process of the agent."""
        handles = self._state.remembered("handle")
        for key, handle in handles.items():
            if key.partition("/")[0] not in self._state.tables["allocations"]:
                self._state.remember("handle", key, None)
                self.spawn(self._drivers[handle["driver"]].vanish(handle))
        for allocation in list(self._state.tables["allocations"].values()):
            if allocation["ClientStatus"] not in TERMINAL and not is_made(allocation):
                self._start(allocation, handles)

    def _start(self, allocation: Doc, handles: Doc | None = None) -> None:
        runner = AllocationRunner(
            allocation,
            self._state.tables["nodes"][allocation["NodeID"]],
            self._options.data_dir / "alloc" / allocation["ID"],
            self._drivers,
            self._variable,
            self._changed,
            lambda key, handle: self._state.remember("handle", key, handle),
            self._options.slow_failures,
        )
        self.runners[allocation["ID"]] = runner
        self.spawn(self._run(runner, handles))

    async def _run(self, runner: AllocationRunner, handles: Doc | None) -> None:
        if handles is not None:
            for name, task in runner.tasks.items():
                await task.recover(handles.get(f"{runner.allocation['ID']}/{name}"))
            if runner.allocation["DesiredStatus"] != "run":
                self.spawn(runner.kill())
        before = self.runners.get(runner.allocation.get("PreviousAllocation", ""))
        if before is not None:
            await before.ended.wait()  # the replacement starts when what it replaces has ended
        await runner.run()

    def allocations_changed(self, allocations: list[Doc]) -> None:
        """Start and end what the scheduler has decided."""
        for allocation in allocations:
            runner = self.runners.get(allocation["ID"])
            if allocation["NodeID"] in self._lost:
                continue
            if runner is None and allocation["DesiredStatus"] == "run" and allocation["ClientStatus"] == "pending":
                if not is_made(allocation):
                    self._start(allocation)
            elif runner is not None and allocation["DesiredStatus"] != "run" and not runner.lost:
                self.spawn(runner.kill())
            elif runner is None and allocation["DesiredStatus"] != "run" and is_made(allocation):
                allocation |= {"ClientStatus": "complete", "ClientDescription": "All tasks have completed"}
                self._changed(allocation)

    def _changed(self, allocation: Doc) -> None:
        if not self._dirty:
            asyncio.get_running_loop().call_later(REPORT, self.report)
        self._dirty[allocation["ID"]] = allocation

    def forget(self, allocations: list[Doc]) -> None:
        """End what belongs to a job that was purged; nothing is reported of it."""
        freed = False
        for allocation in allocations:
            self._dirty.pop(allocation["ID"], None)
            runner = self.runners.get(allocation["ID"])
            freed |= allocation["ClientStatus"] not in TERMINAL
            if runner is not None:
                runner.lost = True
                self.spawn(self._forget(runner))
        if freed:
            asyncio.get_running_loop().call_soon(self.scheduler.capacity_changed)

    async def _forget(self, runner: AllocationRunner) -> None:
        await runner.kill()
        await runner.ended.wait()
        self.runners.pop(runner.allocation["ID"], None)
        runner.folder.remove()

    def report(self) -> None:
        """Write what has changed since the last report, under one index."""
        changed, self._dirty = list(self._dirty.values()), {}
        if not changed:
            return
        freed = False
        nodes: dict[str, Doc] = {}
        jobs: dict[str, Doc] = {}
        with self._state.change("AllocationUpdated") as transaction:
            for allocation in changed:
                before = allocation["ClientStatus"]
                if (runner := self.runners.get(allocation["ID"])) is not None:
                    if runner.lost:
                        continue
                    runner.write()
                transaction.put("allocations", allocation)
                freed |= allocation["ClientStatus"] in TERMINAL
                nodes[allocation["NodeID"]] = self._state.tables["nodes"][allocation["NodeID"]]
                key = key_of(allocation["Namespace"], allocation["JobID"])
                if (job := self._state.tables["jobs"].get(key)) is not None:
                    jobs[key] = job
                    self._reschedule(transaction, job, allocation, before)
            for job in jobs.values():
                self.scheduler.refresh(transaction, job)
            for node in nodes.values():
                transaction.mention("nodes", node)
        if freed:
            self.scheduler.capacity_changed()

    def _reschedule(self, transaction: Transaction, job: Doc, allocation: Doc, before: str) -> None:
        if allocation["ClientStatus"] == "failed" != before:
            policy = group_of(allocation)["ReschedulePolicy"]
            if policy["Unlimited"] or policy["Attempts"]:
                self.scheduler.evaluate(transaction, job, "alloc-failure")

    def _variable(self, allocation: Doc, path: str, task: Doc) -> dict[str, str] | None:
        """Look up a variable for a template; with ACLs a job reads only its own."""
        own = "nomad/jobs"
        prefixes = [own]
        for part in (allocation["JobID"], allocation["TaskGroup"], task["Name"]):
            own = f"{own}/{part}"
            prefixes.append(own)
        if self._options.acl_token is not None and path not in prefixes:
            return None
        found = self._state.tables["variables"].get(key_of(allocation["Namespace"], path))
        return None if found is None else dict(found["Items"])

    def variables_changed(self) -> None:
        """Let the templates of all tasks look again."""
        for runner in self.runners.values():
            runner.wake()

    def _on(self, node: str) -> list[AllocationRunner]:
        return [runner for runner in self.runners.values() if runner.allocation["NodeID"] == node]

    async def lose(self, node: str, *, keep_tasks: bool) -> None:
        """Report nothing of a node any more, which begins nothing more; kill what is on it unless tasks are kept."""
        self._lost.add(node)
        for runner in self._on(node):
            runner.lost = True
        if not keep_tasks:
            await asyncio.gather(*(runner.vanish() for runner in self._on(node)))

    def find(self, node: str) -> None:
        """Report again what is on a node, and let it do what was wanted of it; what has been replaced is ended."""
        self._lost.discard(node)
        for runner in self._on(node):
            if runner.ended.is_set():
                continue  # the machine has taken it along
            runner.lost = False
            self._changed(runner.allocation)
            if runner.allocation["DesiredStatus"] != "run":
                self.spawn(runner.kill())
        self.allocations_changed([one for one in self._state.of_node[node].values() if one["ID"] not in self.runners])

    async def end_everything(self) -> None:
        """Kill all tasks and remove their folders: for the end of a test."""
        runners = list(self.runners.values())
        await asyncio.gather(*(runner.vanish() for runner in runners))
        await asyncio.gather(*(runner.ended.wait() for runner in runners))

    def collect(self) -> None:
        """Forget the folders of allocations that are gone."""
        for key in list(self.runners):
            if key not in self._state.tables["allocations"]:
                self.runners.pop(key).folder.remove()


def is_made(allocation: Doc) -> bool:
    """Tell whether nothing runs behind an allocation: `mock.py` makes such."""
    return bool((allocation["Job"]["Meta"] or {}).get("stand_in") == "made")


def group_of(allocation: Doc) -> Doc:
    """Return the task group that an allocation is of."""
    groups = allocation["Job"]["TaskGroups"]
    return dict(next(group for group in groups if group["Name"] == allocation["TaskGroup"]))

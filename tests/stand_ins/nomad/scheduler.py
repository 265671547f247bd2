"""Evaluations: what is wanted of a job is compared with what there is; the difference is placed and stopped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .capacity import allocated, demand
from .documents import Doc, new_id, now
from .placement import Place, find, no_metrics
from .reconcile import LOST, Reconciliation, live, reconcile
from .state import State, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .state import Transaction

__all__ = ["Scheduler"]

TRANSITIONS = ("ForceReschedule", "Migrate", "MigrateDisablePlacement", "NoShutdownDelay", "Reschedule")

DELAY = 0.01
"""Seconds from an evaluation to its processing."""


@dataclass(slots=True)
class Outcome:
    """What processing one evaluation has changed."""

    stopped: list[Doc] = field(default_factory=list)
    placed: list[Doc] = field(default_factory=list)
    displaced: list[Doc] = field(default_factory=list)
    failures: Doc = field(default_factory=dict)
    queued: dict[str, int] = field(default_factory=dict)


class Scheduler:
    """Creates evaluations and processes them, one after the other."""

    def __init__(self, state: State, tell: Callable[[list[Doc]], None], *, preemption: bool) -> None:
        self._state = state
        self._tell = tell
        self._preemption = preemption
        self._tasks: set[asyncio.TimerHandle] = set()

    def resume(self) -> None:
        """Process what was pending when the agent ended."""
        for evaluation in self._state.tables["evaluations"].values():
            if evaluation["Status"] == "pending":
                self._soon(evaluation, DELAY)

    def evaluate(self, transaction: Transaction, job: Doc, trigger: str, delay: float = DELAY, **more: object) -> Doc:
        """Create an evaluation of a job within a transaction, and process it `delay` seconds later."""
        evaluation: Doc = {
            **{"ID": new_id(), "Namespace": job["Namespace"], "Priority": job["Priority"], "Type": job["Type"]},
            **{"TriggeredBy": trigger, "JobID": job["ID"], "JobModifyIndex": job.get("JobModifyIndex", 0)},
            **{"Status": "pending", "QueuedAllocations": {}, **more},
        }
        transaction.put("evaluations", evaluation)
        self._soon(evaluation, delay)
        return evaluation

    def _soon(self, evaluation: Doc, delay: float) -> None:
        handle: asyncio.TimerHandle

        def process() -> None:
            self._tasks.discard(handle)
            self._process(evaluation)

        handle = asyncio.get_running_loop().call_later(delay, process)
        self._tasks.add(handle)

    def capacity_changed(self) -> None:
        """Try the blocked evaluations again."""
        blocked = [one for one in self._state.tables["evaluations"].values() if one["Status"] == "blocked"]
        for evaluation in sorted(blocked, key=lambda one: (-one["Priority"], one["CreateIndex"])):
            self._process(evaluation)

    def _process(self, evaluation: Doc) -> None:
        if evaluation["Status"] not in ("pending", "blocked"):
            return
        state, key = self._state, key_of(evaluation["Namespace"], evaluation["JobID"])
        job = state.tables["jobs"].get(key)
        wanted = reconcile(job, list(state.of_job[key].values()), state.tables["nodes"])
        outcome = self._plan(job, wanted)
        if evaluation["Status"] == "blocked" and outcome.failures and not (outcome.placed or outcome.stopped):
            return
        with state.change("PlanResult") as transaction:
            self._apply(transaction, evaluation, wanted, outcome)
        with state.change("EvaluationUpdated") as transaction:
            self._finish(transaction, evaluation, job, outcome)
            for later in wanted.later.values():
                if job is not None:
                    self.evaluate(transaction, job, "alloc-failure", delay=later)
            for other in {key_of(one["Namespace"], one["JobID"]): one for one in outcome.displaced}.values():
                self.evaluate(transaction, other["Job"], "preemption")
        self._tell([*outcome.stopped, *outcome.displaced, *outcome.placed, *wanted.updated])

    def _plan(self, job: Doc | None, wanted: Reconciliation) -> Outcome:
        outcome = Outcome(stopped=[allocation for allocation, _ in wanted.stop])
        leaving = {allocation["ID"] for allocation in outcome.stopped}
        for group, name, previous in wanted.place:
            assert job is not None
            if (failed := outcome.failures.get(group["Name"])) is not None:
                failed["CoalescedFailures"] += 1
                outcome.queued[group["Name"]] += 1
                continue
            metrics = no_metrics()
            place = find(self._state, job, group, metrics, leaving=leaving, preemption=self._preemption)
            if place is None:
                outcome.failures[group["Name"]] = metrics
                outcome.queued[group["Name"]] = 1
                continue
            allocation = new_allocation(job, group, name, place, metrics, previous)
            self._state.of_node[place.node["ID"]][allocation["ID"]] = allocation  # the next one sees it
            outcome.placed.append(allocation)
            outcome.displaced += place.displaced
            leaving |= {one["ID"] for one in place.displaced}
        return outcome

    def _apply(self, transaction: Transaction, evaluation: Doc, wanted: Reconciliation, outcome: Outcome) -> None:
        if wanted.stop or wanted.updated or outcome.placed:
            transaction.put("evaluations", evaluation)
        for allocation in outcome.placed:
            allocation["EvalID"] = evaluation["ID"]
            transaction.put("allocations", allocation)
            previous = self._state.tables["allocations"].get(allocation.get("PreviousAllocation", ""))
            if previous is not None:
                succeed(previous, allocation)
                transaction.put("allocations", previous)
        for allocation, why in wanted.stop:
            allocation |= {"DesiredStatus": "stop", "DesiredDescription": why}
            if why == LOST:
                allocation["ClientStatus"] = "lost"
            transaction.put("allocations", allocation)
        for allocation in wanted.updated:
            transaction.put("allocations", allocation)
        for allocation in outcome.displaced:
            by = outcome.placed[-1]["ID"]
            allocation |= {"DesiredStatus": "evict", "DesiredDescription": f"Preempted by alloc ID {by}"}
            allocation["PreemptedByAllocation"] = by
            transaction.put("allocations", allocation)
        job = self._state.tables["jobs"].get(key_of(evaluation["Namespace"], evaluation["JobID"]))
        if job is not None and transaction.changed:
            self.refresh(transaction, job)

    def _finish(self, transaction: Transaction, evaluation: Doc, job: Doc | None, outcome: Outcome) -> None:
        groups = (job["TaskGroups"] if job is not None and not job["Stop"] else None) or ()
        evaluation["QueuedAllocations"] = {group["Name"]: outcome.queued.get(group["Name"], 0) for group in groups}
        if not outcome.failures:
            evaluation |= {"Status": "complete", "FailedTGAllocs": None}
        elif evaluation["Status"] == "blocked":
            evaluation["FailedTGAllocs"] = outcome.failures
        else:
            blocked = {
                **{key: evaluation[key] for key in ("Namespace", "Priority", "Type", "JobID", "JobModifyIndex")},
                **{"ID": new_id(), "TriggeredBy": "queued-allocs", "PreviousEval": evaluation["ID"]},
                **{"Status": "blocked", "StatusDescription": "created to place remaining allocations"},
                **{"FailedTGAllocs": outcome.failures, "SnapshotIndex": self._state.index},
            }
            self._cancel_blocked(transaction, evaluation)
            transaction.put("evaluations", blocked)
            evaluation |= {"Status": "complete", "FailedTGAllocs": outcome.failures, "BlockedEval": blocked["ID"]}
        if not groups:
            self._cancel_blocked(transaction, evaluation)
        transaction.put("evaluations", evaluation)
        if job is not None:
            self.refresh(transaction, job)

    def _cancel_blocked(self, transaction: Transaction, newer: Doc) -> None:
        key = key_of(newer["Namespace"], newer["JobID"])
        for other in self._state.evaluations_of_job[key].values():
            if other["Status"] == "blocked" and other is not newer:
                why = f'existing blocked evaluation exists for job "{newer["JobID"]}"'
                other |= {"Status": "canceled", "StatusDescription": why}
                transaction.put("evaluations", other)

    def refresh(self, transaction: Transaction, job: Doc) -> None:
        """Write a job's status if it has changed."""
        key = key_of(job["Namespace"], job["ID"])
        allocations = [
            one for one in self._state.of_job[key].values() if one["Job"]["CreateIndex"] == job["CreateIndex"]
        ]
        changed = [
            doc for table, _, doc, _ in transaction.changed if table == "allocations" and doc["JobID"] == job["ID"]
        ]
        evaluations = self._state.evaluations_of_job[key].values()
        if any(live(one) for one in (*allocations, *changed)):
            status = "running"
        elif any(one["Status"] in ("pending", "blocked") for one in evaluations):
            status = "pending"
        else:
            status = "dead" if evaluations or allocations else "pending"
        if job["Status"] != status:
            job["Status"] = status
            transaction.put("jobs", job)


def succeed(previous: Doc, allocation: Doc) -> None:
    """Note in both that one takes the place of the other."""
    previous["NextAllocation"] = allocation["ID"]
    if previous["ClientStatus"] == "failed":
        tried = {"PrevAllocID": previous["ID"], "PrevNodeID": previous["NodeID"], "RescheduleTime": now()}
        before = (previous.get("RescheduleTracker") or {}).get("Events", [])
        allocation["RescheduleTracker"] = {"Events": [*before, tried], "LastReschedule": "ok"}
        why = "alloc was rescheduled because it failed"
        previous |= {"DesiredStatus": "stop", "DesiredDescription": why}


def resources(group: Doc) -> Doc:
    """Sum what the tasks of a group ask for."""
    wanted = demand(group)
    return {"CPU": wanted.cpu, "MemoryMB": wanted.memory, "DiskMB": wanted.disk, "Cores": 0, "Devices": None}


def new_allocation(job: Doc, group: Doc, name: str, place: Place, metrics: Doc, previous: str | None) -> Doc:
    """Write an allocation that a node has yet to hear of."""
    address = place.node["NodeResources"]["Networks"][0]["IP"]
    return {
        **{"ID": new_id(), "Namespace": job["Namespace"], "Name": name, "NodeID": place.node["ID"]},
        **{"NodeName": place.node["Name"], "JobID": job["ID"], "Job": job, "TaskGroup": group["Name"]},
        **{"AllocatedResources": allocated(group, place.ports, address), "Metrics": metrics},
        **{"DesiredStatus": "run", "ClientStatus": "pending", "TaskStates": None, "CreateTime": now()},
        **({"PreviousAllocation": previous} if previous else {}),
        **({"PreemptedAllocations": [one["ID"] for one in place.displaced]} if place.displaced else {}),
        **{"DesiredTransition": dict.fromkeys(TRANSITIONS)},
        "Resources": resources(group),
    }

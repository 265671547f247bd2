"""What is wanted of a job against what there is of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .documents import Doc

__all__ = ["LOST", "Reconciliation", "index_of", "live", "reconcile"]

NOT_NEEDED = "alloc not needed due to job update"
MIGRATING = "alloc is being migrated"
UPDATING = "alloc is being updated due to job update"
LOST = "alloc is lost since its node is down"


@dataclass(slots=True)
class Reconciliation:
    """Allocations to stop with the reason, to place (group, name, the one before), and groups to look at later."""

    stop: list[tuple[Doc, str]] = field(default_factory=list)
    place: list[tuple[Doc, str, str | None]] = field(default_factory=list)
    updated: list[Doc] = field(default_factory=list)
    later: dict[str, float] = field(default_factory=dict)


def index_of(allocation: Doc) -> int:
    """Read the index out of `job.group[index]`."""
    return int(allocation["Name"].rpartition("[")[2].rstrip("]"))


def live(allocation: Doc) -> bool:
    """Tell whether an allocation runs, or will, and shall."""
    return allocation["DesiredStatus"] == "run" and allocation["ClientStatus"] in ("pending", "running", "unknown")


def same(one: Doc, other: Doc) -> bool:
    """Tell whether a change of the group needs no new allocation."""
    return {**one, "Count": 0} == {**other, "Count": 0}


def reconcile(job: Doc | None, allocations: list[Doc], nodes: dict[str, Doc]) -> Reconciliation:
    """Compare; `job` is `None` once it was purged."""
    wanted = Reconciliation()
    groups = {group["Name"]: group for group in job["TaskGroups"]} if job is not None and not job["Stop"] else {}
    for allocation in allocations:
        if live(allocation) and allocation["TaskGroup"] not in groups:
            wanted.stop.append((allocation, NOT_NEEDED))
    for group in groups.values():
        assert job is not None
        own = [
            one
            for one in allocations
            if one["TaskGroup"] == group["Name"] and (live(one) or one["Job"]["CreateIndex"] == job["CreateIndex"])
        ]
        reconcile_group(job, group, own, nodes, wanted)
    return wanted


def reconcile_group(job: Doc, group: Doc, own: list[Doc], nodes: dict[str, Doc], wanted: Reconciliation) -> None:
    """Compare one group."""
    kept: dict[int, Doc] = {}
    again: dict[int, Doc] = {}
    for allocation in sorted(own, key=lambda one: int(one.get("CreateIndex", 0))):
        index = index_of(allocation)
        if not live(allocation):
            ended(allocation, job, group, kept, again, wanted)
        elif (why := must_go(allocation, job, group, nodes, wanted)) is not None:
            wanted.stop.append((allocation, why))
            stays_empty = why == MIGRATING and not replaced(allocation)
            (kept if stays_empty else again)[index] = allocation
        elif index >= group["Count"]:
            wanted.stop.append((allocation, NOT_NEEDED))
        else:
            kept[index] = allocation
    for index in range(group["Count"]):
        if index not in kept:
            previous = again.get(index)
            name = f"{job['ID']}.{group['Name']}[{index}]"
            wanted.place.append((group, name, previous["ID"] if previous else None))


def replaced(allocation: Doc) -> bool:
    """Tell whether an allocation that migrates gets a successor: one of a batch job on a drained node does not."""
    return not allocation["DesiredTransition"].get("MigrateDisablePlacement")


def ended(
    allocation: Doc, job: Doc, group: Doc, kept: dict[int, Doc], again: dict[int, Doc], wanted: Reconciliation
) -> None:
    """See what becomes of the place of an allocation that is over."""
    index = index_of(allocation)
    if not replaced(allocation):
        kept[index] = allocation
    elif allocation["DesiredStatus"] == "run" and not allocation.get("NextAllocation"):
        if allocation["ClientStatus"] == "failed":
            failed(allocation, group, index, kept, again, wanted)
        elif job["Type"] == "batch" and allocation["Job"]["Version"] == job["Version"]:
            kept[index] = allocation


def must_go(allocation: Doc, job: Doc, group: Doc, nodes: dict[str, Doc], wanted: Reconciliation) -> str | None:
    """Say why a live allocation cannot stay; one that only gets a new version of its job does."""
    node = nodes.get(allocation["NodeID"])
    if node is None or node["Status"] == "down":
        return LOST
    if allocation["DesiredTransition"]["Migrate"]:
        return MIGRATING
    if allocation["Job"] is not job:
        before = next((one for one in allocation["Job"]["TaskGroups"] if one["Name"] == group["Name"]), None)
        if before is None or not same(before, group) or allocation["Job"]["CreateIndex"] != job["CreateIndex"]:
            return UPDATING
        if allocation["Job"]["Version"] != job["Version"]:
            allocation["Job"] = job
            wanted.updated.append(allocation)
    return None


def failed(
    allocation: Doc, group: Doc, index: int, kept: dict[int, Doc], again: dict[int, Doc], wanted: Reconciliation
) -> None:
    """Try a failed allocation again as its reschedule policy says; one without attempts keeps its place."""
    policy = group["ReschedulePolicy"]
    tried = len((allocation.get("RescheduleTracker") or {}).get("Events") or ())
    if not policy["Unlimited"] and tried >= policy["Attempts"]:
        kept[index] = allocation
        return
    due = allocation["ModifyTime"] / 1e9 + policy["Delay"] / 1e9 - time.time()
    if due > 0.05:
        kept[index] = allocation
        wanted.later[group["Name"]] = due
    else:
        again[index] = allocation

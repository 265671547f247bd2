"""Finding a node for one allocation, and the figures that say why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .capacity import assign_ports, demand, lacking, used
from .constraints import affinity, in_reach, obstacle

if TYPE_CHECKING:
    from collections.abc import Collection

    from .documents import Doc
    from .state import State

__all__ = ["Place", "find", "no_metrics"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an allocation goes, and whom it displaces there."""

    node: Doc
    ports: list[Doc]
    displaced: list[Doc] = field(default_factory=list)


def no_metrics() -> Doc:
    """Return the figures of a search that has not begun."""
    return {
        **{"NodesEvaluated": 0, "NodesFiltered": 0, "NodesInPool": 0, "NodePool": "", "NodesAvailable": {}},
        **{"ClassFiltered": None, "ConstraintFiltered": None, "NodesExhausted": 0, "ClassExhausted": None},
        **{"DimensionExhausted": None, "QuotaExhausted": None, "ResourcesExhausted": None, "Scores": None},
        **{"ScoreMetaData": None, "AllocationTime": 0, "CoalescedFailures": 0},
    }


def count(metrics: Doc, key: str, reason: str) -> None:
    """Add one node to a table of reasons."""
    metrics[key] = metrics[key] or {}
    metrics[key][reason] = metrics[key].get(reason, 0) + 1


def candidates(state: State, job: Doc, metrics: Doc) -> list[Doc]:
    """Return the nodes in reach of a job."""
    nodes = list(state.tables["nodes"].values())
    found = [node for node in nodes if in_reach(job, node)]
    for node in found:
        available = metrics["NodesAvailable"]
        available[node["Datacenter"]] = available.get(node["Datacenter"], 0) + 1
    metrics["NodePool"] = job["NodePool"]
    metrics["NodesInPool"] = len(found)
    return found


def fit(node: Doc, group: Doc, taken: list[Doc]) -> list[Doc] | str:
    """Return the ports that the group gets on a node, or the dimension that is exhausted."""
    return lacking(node, used(taken), demand(group)) or assign_ports(group, node, taken)


def displace(node: Doc, job: Doc, group: Doc, taken: list[Doc]) -> Place | None:
    """Make room by giving up allocations of jobs whose priority is lower by 10 at least."""
    weaker = [one for one in taken if one["Job"]["Priority"] <= job["Priority"] - 10]
    weaker.sort(key=lambda one: int(one["Job"]["Priority"]))
    displaced: list[Doc] = []
    for one in weaker:
        displaced.append(one)
        ports = fit(node, group, [other for other in taken if other not in displaced])
        if not isinstance(ports, str):
            return Place(node, ports, displaced)
    return None


def find(
    state: State, job: Doc, group: Doc, metrics: Doc, *, leaving: Collection[str] = (), preemption: bool = False
) -> Place | None:
    """Choose a node that fits: the one that a job likes best, and then the fullest.

    `metrics` is filled in; allocations in `leaving` count as gone.
    """
    best: tuple[float, Place] | None = None
    crowded: list[tuple[Doc, list[Doc]]] = []
    for node in candidates(state, job, metrics):
        metrics["NodesEvaluated"] += 1
        if (reason := obstacle(job, group, node)) is not None:
            metrics["NodesFiltered"] += 1
            count(metrics, "ConstraintFiltered", reason)
            continue
        taken = [one for one in state.of_node[node["ID"]].values() if one["ID"] not in leaving]
        ports = fit(node, group, taken)
        if isinstance(ports, str):
            metrics["NodesExhausted"] += 1
            count(metrics, "DimensionExhausted", ports)
            metrics["ResourcesExhausted"] = {task["Name"]: task["Resources"] for task in group["Tasks"]}
            crowded.append((node, taken))
            continue
        full = used(taken).memory / max(1, node["NodeResources"]["Memory"]["MemoryMB"])
        score = affinity(job, group, node) + full
        if best is None or score > best[0]:
            best = (score, Place(node, ports))
    if best is not None:
        return best[1]
    return (
        next(filter(None, (displace(node, job, group, taken) for node, taken in crowded)), None) if preemption else None
    )

"""Which nodes a group may run on: datacenter, pool, drivers, volumes, constraints."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .documents import Doc

__all__ = ["affinity", "in_reach", "obstacle"]


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def version_fits(have: str, wanted: str) -> bool:
    """Tell whether a version satisfies `>= 1.2, < 2`."""
    compare: dict[str, Callable[[list[int], list[int]], bool]] = {
        **{">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, "<": lambda a, b: a < b},
        **{"=": lambda a, b: a == b, "": lambda a, b: a == b, "!=": lambda a, b: a != b, "~>": lambda a, b: a >= b},
    }
    for part in wanted.split(","):
        found = re.fullmatch(r"\s*([<>=!~]*)\s*v?(.+?)\s*", part)
        if found is None or not compare[found[1]](numbers(have), numbers(found[2])):
            return False
    return True


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "=": str.__eq__,
    "==": str.__eq__,
    "is": str.__eq__,
    "!=": str.__ne__,
    "not": str.__ne__,
    "<": str.__lt__,
    "<=": str.__le__,
    ">": str.__gt__,
    ">=": str.__ge__,
    "regexp": lambda have, wanted: re.search(wanted, have) is not None,
    "version": version_fits,
    "semver": version_fits,
    "set_contains": lambda have, wanted: set(wanted.split(",")) <= set(have.split(",")),
    "set_contains_any": lambda have, wanted: bool(set(wanted.split(",")) & set(have.split(","))),
}


def resolve(target: str, node: Doc) -> str | None:
    """Read `${attr.kernel.name}` of a node; text without `${` is itself."""
    found = re.fullmatch(r"\$\{(.+)\}", target)
    if found is None:
        return target
    name = found[1]
    kind, _, rest = name.partition(".")
    fields = {
        **{"node.datacenter": "Datacenter", "node.class": "NodeClass", "node.pool": "NodePool"},
        **{"node.unique.id": "ID", "node.unique.name": "Name"},
    }
    if name in fields:
        return str(node[fields[name]])
    table = {"attr": "Attributes", "meta": "Meta"}.get(kind)
    value = (node[table] or {}).get(rest) if table else None
    return None if value is None else str(value)


def satisfied(rule: Doc, node: Doc) -> bool:
    """Tell whether a node fulfils one constraint or affinity."""
    operator = rule.get("Operand") or "="
    have = resolve(rule.get("LTarget") or "", node)
    if operator in ("distinct_hosts", "distinct_property"):
        return True
    if operator in ("is_set", "is_not_set"):
        return (have is not None) == (operator == "is_set")
    wanted = resolve(rule.get("RTarget") or "", node)
    if have is None or wanted is None:
        return operator in ("!=", "not")
    return operator in OPERATORS and OPERATORS[operator](have, wanted)


def rules(job: Doc, group: Doc, key: str) -> Iterator[Doc]:
    yield from job.get(key) or ()
    yield from group.get(key) or ()
    for task in group["Tasks"]:
        yield from task.get(key) or ()


def in_reach(job: Doc, node: Doc) -> bool:
    """Tell whether a node is ready, and in the job's pool and datacenters."""
    if node["Status"] != "ready" or node["SchedulingEligibility"] != "eligible" or node["DrainStrategy"]:
        return False
    if job["NodePool"] not in ("all", node["NodePool"]):
        return False
    return any(fnmatch.fnmatchcase(node["Datacenter"], wanted) for wanted in job["Datacenters"])


def obstacle(job: Doc, group: Doc, node: Doc) -> str | None:
    """Name what rules a node out, in the agent's words."""
    for task in group["Tasks"]:
        driver = node["Drivers"].get(task["Driver"])
        if not (driver and driver["Detected"] and driver["Healthy"]):
            return "missing drivers"
    for rule in rules(job, group, "Constraints"):
        if not satisfied(rule, node):
            parts = (rule.get("LTarget") or "", rule.get("Operand") or "=", rule.get("RTarget") or "")
            return " ".join(parts)
    for volume in (group.get("Volumes") or {}).values():
        if volume.get("Source") not in node["HostVolumes"]:
            return "missing compatible host volumes"
    if any(task["Resources"].get("Devices") for task in group["Tasks"]):
        return "missing devices"
    return None


def affinity(job: Doc, group: Doc, node: Doc) -> float:
    """Sum the weights of the affinities that a node fulfils."""
    asked = rules(job, group, "Affinities")
    return sum(float(rule.get("Weight") or 50) / 100 for rule in asked if satisfied(rule, node))

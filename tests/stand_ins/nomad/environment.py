"""The environment of a task, and `${…}` in its configuration."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from .reconcile import index_of

if TYPE_CHECKING:
    from .alloc_dir import TaskDir
    from .documents import Doc

__all__ = ["UnknownVariable", "build", "fill_config", "fill_text", "names_of_node"]

REFERENCE = re.compile(r"(\$?)\$\{\s*([^}]*?)\s*\}")


class UnknownVariable(Exception):
    """A configuration refers to what does not exist."""


def names_of_node(node: Doc) -> dict[str, str]:
    """Return what `${node.…}`, `${attr.…}` and `${meta.…}` mean on a node."""
    names = {
        **{"node.unique.id": node["ID"], "node.unique.name": node["Name"], "node.datacenter": node["Datacenter"]},
        **{"node.class": node["NodeClass"], "node.pool": node["NodePool"], "node.region": "global"},
    }
    names |= {f"attr.{key}": str(value) for key, value in node["Attributes"].items()}
    return names | {f"meta.{key}": str(value) for key, value in (node["Meta"] or {}).items()}


def fill_text(text: str, names: dict[str, str]) -> str:
    """Replace `${NAME}`; what is unknown stays as it is."""

    def value(found: re.Match[str]) -> str:
        return found[0] if found[1] else names.get(found[2], found[0])

    return REFERENCE.sub(value, text)


def fill_config(value: Any, names: dict[str, str]) -> Any:
    """Replace `${NAME}` everywhere in a configuration; what is unknown is an error, `$${` is a literal `${`."""
    if isinstance(value, dict):
        return {key: fill_config(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [fill_config(one, names) for one in value]
    if not isinstance(value, str):
        return value

    def known(found: re.Match[str]) -> str:
        if found[1]:
            return found[0][1:]
        name = re.sub(r'^env\["(.*)"\]$', r"\1", found[2])
        if name not in names:
            raise UnknownVariable(f'Unknown variable: There is no variable named "{name.split(".")[0]}".')
        return names[name]

    return REFERENCE.sub(known, value)


def build(allocation: Doc, task: Doc, node: Doc, folder: TaskDir, *, isolated: bool) -> dict[str, str]:
    """Return the environment before templates have added to it."""
    job, resources = allocation["Job"], allocation["AllocatedResources"]["Tasks"][task["Name"]]
    group = next(one for one in job["TaskGroups"] if one["Name"] == allocation["TaskGroup"])
    folders = ("/alloc", "/local", "/secrets") if isolated else (folder.shared, folder.local, folder.secrets)
    names = dict(zip(("NOMAD_ALLOC_DIR", "NOMAD_TASK_DIR", "NOMAD_SECRETS_DIR"), map(str, folders), strict=True))
    names |= {
        **{"NOMAD_MEMORY_LIMIT": str(resources["Memory"]["MemoryMB"])},
        **{"NOMAD_CPU_LIMIT": str(resources["Cpu"]["CpuShares"])},
        **{"NOMAD_ALLOC_ID": allocation["ID"], "NOMAD_SHORT_ALLOC_ID": allocation["ID"][:8]},
        **{"NOMAD_ALLOC_NAME": allocation["Name"], "NOMAD_ALLOC_INDEX": str(index_of(allocation))},
        **{"NOMAD_GROUP_NAME": group["Name"], "NOMAD_TASK_NAME": task["Name"]},
        **{"NOMAD_JOB_ID": job["ID"], "NOMAD_JOB_NAME": job["Name"], "NOMAD_NAMESPACE": allocation["Namespace"]},
        **{"NOMAD_DC": node["Datacenter"], "NOMAD_REGION": job.get("Region") or "global"},
    }
    names |= ports(allocation["AllocatedResources"]["Shared"].get("Ports", []))
    on_node = names_of_node(node)
    meta = (job.get("Meta") or {}) | (group.get("Meta") or {}) | (task.get("Meta") or {})
    for key, value in meta.items():
        text = fill_text(str(value), on_node | names)
        names |= {clean(f"NOMAD_META_{key}"): text, clean(f"NOMAD_META_{key.upper()}"): text}
    if not isolated:
        names = {key: value for key, value in os.environ.items() if not key.startswith("NOMAD_")} | names
    for key, value in (task.get("Env") or {}).items():
        names[key] = fill_text(str(value), on_node | names)
    return names


def clean(name: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def ports(given: list[Doc]) -> dict[str, str]:
    """Say where the ports are."""
    names: dict[str, str] = {}
    for port in given:
        label, outer, inner = clean(port["Label"]), str(port["Value"]), str(port.get("To") or port["Value"])
        names |= {f"NOMAD_{kind}_{label}": port["HostIP"] for kind in ("IP", "HOST_IP")}
        names |= {f"NOMAD_{kind}_{label}": f"{port['HostIP']}:{outer}" for kind in ("ADDR", "HOST_ADDR")}
        names |= {f"NOMAD_{kind}_{label}": inner for kind in ("PORT", "ALLOC_PORT")}
        names[f"NOMAD_HOST_PORT_{label}"] = outer
    return names

"""Merges a job specification of the user's own into that of a sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from hermes_backend_nomad._cluster import Cluster
from hermes_core.exceptions import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hermes_backend_nomad._address import Address

__all__ = ["merge_job", "read_job"]

OURS = {
    "job": frozenset(("ID", "Name", "Namespace", "Region", "Periodic", "ParameterizedJob", "Multiregion")),
    "group": frozenset(("Name", "Count", "RestartPolicy", "ReschedulePolicy", "Update", "Scaling")),
    "task": frozenset(("Name", "Driver", "RestartPolicy", "Lifecycle")),
}
"""What a specification cannot say for a sandbox: names, and how often it runs."""
SETTINGS = {"Namespace": "namespace", "Region": "region"}
REPEATED = ("Periodic", "ParameterizedJob", "Multiregion")
ADDED = frozenset(
    (
        *("Constraints", "Affinities", "Spreads", "Devices", "Templates", "Artifacts", "VolumeMounts"),
        *("volumes", "mount", "cap_add", "security_opt", "ports"),  # of the docker driver
    )
)
"""Lists to which is added, since sandboxes need what is in them; any other is replaced."""


async def read_job(path: Path, address: Address) -> dict[str, Any]:
    """Return a job specification in the form of Nomad's interface, without what it does not say.

    Args:
        path: HCL, which the agent translates, or JSON.
        address: Of the agent, which is not asked for JSON.

    Raises:
        ConfigError: It cannot be read, or is none.
    """
    try:
        text = await anyio.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the job specification {path} cannot be read: {error}", hint="-B job=FILE") from None
    if text.lstrip().startswith("{"):
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the job specification {path} is no JSON: {error}", hint="-B job=FILE") from None
        parsed = parsed.get("Job", parsed)
    else:
        parsed = await _translated(path, text, address)
    if not isinstance(parsed, dict) or not (parsed.keys() & {"TaskGroups", "Constraints", "Datacenters", "ID", "Meta"}):
        raise ConfigError(
            f"{path} is no job specification", hint="HCL with a block job, or the JSON of: nomad job run -output FILE"
        )
    stated: dict[str, Any] = _stated(parsed)
    return stated


async def _translated(path: Path, text: str, address: Address) -> Any:  # noqa: ANN401 - JSON
    content = {"JobHCL": text, "Canonicalize": False}
    async with Cluster(address) as cluster:
        try:
            answer = await cluster.put("jobs", "parse", what="read the job specification", content=content)
        except BackendUnavailableError as error:
            raise ConfigError(f"the job specification {path}: {error.message}", hint=error.hint) from None
    return answer.content


def merge_job(own: dict[str, Any], users: Mapping[str, Any], *, tasks_image: str | None = None) -> dict[str, Any]:
    """Return a sandbox's job with what the user says merged in, whose word counts.

    A job, its one group and the group's one task are merged each into that of the sandbox, whatever their names are.

    Args:
        own: The sandbox's, in the form of Nomad's interface.
        users: The user's, in the same form.
        tasks_image: The image that a task brings, which takes the place of any that is configured; None if it has none.

    Raises:
        ConfigError: It says what no sandbox can be.
    """
    if users.get("Type", "batch") != "batch":
        raise ConfigError(f"sandboxes are batch jobs, and the job specification says type {users['Type']!r}")
    if (repeated := next((name for name in REPEATED if users.get(name)), None)) is not None:
        raise ConfigError(f"sandboxes run once each, when they are needed, and the job specification has {repeated}")
    for name, setting in SETTINGS.items():
        if users.get(name) not in (None, "", own.get(name), "default", "global"):
            raise ConfigError(
                f"the job specification names the {setting} {users[name]!r}",
                hint=f"say it as -B {setting}={users[name]}",
            )
    [own_group] = own["TaskGroups"]
    group = _only(users, "TaskGroups", "group")
    task = _only(group, "Tasks", "task")
    if group.get("Count", 1) != 1:
        raise ConfigError(
            f"the job specification asks for {group['Count']} of its group, and each sandbox has a job of its own",
            hint="-B max_sandboxes=N, and -B min_sandboxes=N",
        )
    [own_task] = own_group["Tasks"]
    driver = task.get("Driver") or own_task["Driver"]
    if driver != own_task["Driver"]:
        raise ConfigError(
            f"the job specification has the driver {driver!r}, and this backend {own_task['Driver']!r}",
            hint="the backend nomad has docker, nomad-singularity raw_exec",
        )
    merged_task = _merged(own_task, _without(task, OURS["task"]))
    if tasks_image is not None and "image" in own_task["Config"]:
        merged_task["Config"]["image"] = tasks_image
    merged_group = _merged(own_group, _without(group, OURS["group"] | {"Tasks"})) | {"Tasks": [merged_task]}
    merged_group["Networks"] = [_network(own_group, group)]
    merged: dict[str, Any] = _merged(own, _without(users, OURS["job"] | {"TaskGroups", "Type"}))
    return merged | {"TaskGroups": [merged_group]}


def _network(own: Mapping[str, Any], users: Mapping[str, Any]) -> dict[str, Any]:
    """The port stays, but may be on another of the node's networks."""
    network: dict[str, Any] = dict(own["Networks"][0])
    theirs = _only(users, "Networks", "network")
    if (mode := theirs.get("Mode") or "host") != "host":
        raise ConfigError(f"sandboxes are reached at their node's address, and the job specification has mode {mode!r}")
    ports = {port["Label"]: port for port in theirs.get("DynamicPorts") or ()}
    network["DynamicPorts"] = [{**port, **ports.pop(port["Label"], {})} for port in network["DynamicPorts"]]
    network["DynamicPorts"] += ports.values()
    return {**_without(theirs, frozenset(("DynamicPorts", "Mode"))), **network}


def _only(parent: Mapping[str, Any], key: str, what: str) -> Mapping[str, Any]:
    parts: Any = parent.get(key) or [{}]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ConfigError(f"{key} of the job specification is no list of objects, as Nomad's interface has it")
    if len(parts) > 1:
        raise ConfigError(f"the job specification has {len(parts)} blocks {what}, and a sandbox has one")
    only: Mapping[str, Any] = parts[0]
    return only


def _merged(own: Any, users: Any, name: str = "") -> Any:  # noqa: ANN401 - JSON
    if isinstance(own, dict) and isinstance(users, dict):
        return own | {key: _merged(own.get(key), value, key) for key, value in users.items()}
    if isinstance(own, list) and isinstance(users, list) and name in ADDED:
        return [*own, *users]
    return users


def _without(part: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name not in names}


def _stated(part: Any) -> Any:  # noqa: ANN401 - JSON
    """What is said: without what is null, and what is nothing but that."""
    if isinstance(part, dict):
        said = {name: _stated(value) for name, value in part.items() if value is not None}
        return {name: value for name, value in said.items() if value not in ({}, [], "")}
    return [_stated(item) for item in part] if isinstance(part, list) else part

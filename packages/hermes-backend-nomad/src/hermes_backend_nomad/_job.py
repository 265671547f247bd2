"""The parts of a job specification that sandboxes need, as Nomad's interface has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Artifact",
    "DynamicPort",
    "Job",
    "LogConfig",
    "Network",
    "Resources",
    "Task",
    "TaskGroup",
    "Template",
    "api_form",
]

SECOND = 10**9
"""Nomad has its times in nanoseconds."""


def _api_name(name: str) -> str:
    """`size_mb` → `SizeMB`, `id` → `ID`."""
    return "".join(word.upper() if word in ("id", "cpu", "mb") else word.capitalize() for word in name.split("_"))


class Part(BaseModel):
    """A part of a job specification; its fields are named as in Nomad's interface, where they are in `CamelCase`."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_api_name, populate_by_name=True)


class DynamicPort(Part):
    """A port that Nomad chooses, one that is free on the node."""

    label: str


class Network(Part):
    """The network of a group: that of its node."""

    mode: Literal["host"] = "host"
    dynamic_ports: tuple[DynamicPort, ...]


class Resources(Part):
    """What is reserved for a task, in MHz and MB."""

    cpu: int
    memory_mb: int
    memory_max_mb: int | None = None


class LogConfig(Part):
    """How much is kept of what a task writes; it must fit into the group's disk."""

    max_files: int = 2
    max_file_size_mb: int = 5


class Template(Part):
    """A file that is made on the node; with `envvars` its lines are variables of the task."""

    embedded_tmpl: str
    dest_path: str
    envvars: bool = True
    perms: str = "0400"
    change_mode: Literal["noop"] = "noop"


class Artifact(Part):
    """Something that the node fetches before the task starts."""

    getter_source: str
    relative_dest: str


class Task(Part):
    """The one task of a sandbox: its daemon."""

    name: str = "daemon"
    driver: Literal["docker", "raw_exec"]
    user: str | None = None
    config: dict[str, Any]
    env: dict[str, str] = Field(default_factory=dict)
    resources: Resources
    log_config: LogConfig = LogConfig()
    kill_signal: Literal["SIGTERM"] = "SIGTERM"
    kill_timeout: int = 5 * SECOND
    templates: tuple[Template, ...] = ()
    artifacts: tuple[Artifact, ...] = ()


class RestartPolicy(Part):
    """None: a sandbox that has ended is replaced by another one, with slots of its own."""

    attempts: Literal[0] = 0
    mode: Literal["fail"] = "fail"


class ReschedulePolicy(Part):
    """None, as above."""

    attempts: Literal[0] = 0
    unlimited: Literal[False] = False


class EphemeralDisk(Part):
    """What is reserved on the node's disk."""

    size_mb: int


class TaskGroup(Part):
    """One sandbox."""

    name: str = "sandbox"
    count: Literal[1] = 1
    restart_policy: RestartPolicy = RestartPolicy()
    reschedule_policy: ReschedulePolicy = ReschedulePolicy()
    ephemeral_disk: EphemeralDisk
    networks: tuple[Network, ...]
    tasks: tuple[Task, ...]


class Job(Part):
    """A batch job of one allocation: stopping it is exact, and it ends when the daemon does."""

    id: str
    name: str
    type: Literal["batch"] = "batch"
    namespace: str
    region: str | None = None
    datacenters: tuple[str, ...]
    node_pool: str | None = None
    priority: int
    meta: dict[str, str]
    task_groups: tuple[TaskGroup, ...]


def api_form(job: Job) -> dict[str, Any]:
    """Return a job as Nomad's interface takes it; what is None is left to its defaults."""
    return job.model_dump(mode="json", by_alias=True, exclude_none=True)

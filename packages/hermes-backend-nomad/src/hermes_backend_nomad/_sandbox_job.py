"""The job of a sandbox, as far as both drivers have it in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_backend_nomad._job import (
    DynamicPort,
    EphemeralDisk,
    Job,
    Network,
    Resources,
    Task,
    TaskGroup,
    Template,
)

if TYPE_CHECKING:
    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._config import ClusterSettings

__all__ = [
    "META_HOLDER",
    "META_KEPT",
    "META_NAME",
    "META_OWNER",
    "META_POOL",
    "PORT",
    "TASK",
    "TLS_VARIABLE",
    "SandboxPlan",
    "resources_of",
    "sandbox_job",
    "secrets",
    "variable_of",
]

META_OWNER, META_NAME = "hermes_owner", "hermes_sandbox"
META_HOLDER, META_KEPT = "hermes_holder", "hermes_kept"
META_POOL = "hermes_pool"
"""Says the `sandbox_job_id`: a name that begins with one may begin with a longer one."""
TASK = "daemon"
PORT = "rpc"
TOKEN_VARIABLE, TLS_VARIABLE = "HERMES_SANDBOX_TOKEN", "HERMES_SANDBOX_TLS"
SECRETS_FILE = "secrets/hermes.env"


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """A sandbox that is to be.

    Attributes:
        job_id: Of its job.
        owner: Whose it is.
        name: Unique among the owner's sandboxes.
        slots: How many it hosts.
        holder: Whose lease it lives by.
        image: Image of the containers; None for the configured one.
        isolation: Level that the daemon is to have; `auto` for the best.
    """

    job_id: str
    owner: str
    name: str
    slots: int
    holder: str
    image: str | None = None
    isolation: str = "auto"

    @property
    def variable(self) -> str:
        """Path of the variable with its secrets, which only its own templates read without a token."""
        return variable_of(self.job_id)


def variable_of(job_id: str) -> str:
    """Return the path of a job's variable, or of all whose names begin so."""
    return f"nomad/jobs/{job_id}"


def resources_of(config: ClusterSettings) -> Resources:
    """Return what is reserved for a sandbox."""
    return Resources(cpu=config.cpu, memory_mb=config.memory, memory_max_mb=config.memory_max)


def secrets(plan: SandboxPlan, *, tls: bool, prefix: str = "") -> Template:
    """Return the template that hands the daemon its secrets: they are in the job and the allocation nowhere.

    Args:
        plan: Of the sandbox.
        tls: Whether there is a certificate among them.
        prefix: What an engine wants before the names of variables that it hands on.
    """
    keys = {TOKEN_VARIABLE: "token", **({TLS_VARIABLE: "tls"} if tls else {})}
    lines = [
        f'{prefix}{name}={{{{ with nomadVar "{plan.variable}" }}}}{{{{ .{key} }}}}{{{{ end }}}}'
        for name, key in keys.items()
    ]
    return Template(embedded_tmpl="\n".join(lines) + "\n", dest_path=SECRETS_FILE)


def sandbox_job(config: ClusterSettings, address: Address, plan: SandboxPlan, task: Task) -> Job:
    """Return the job of a sandbox around its one task."""
    group = TaskGroup(
        ephemeral_disk=EphemeralDisk(size_mb=config.disk),
        networks=(Network(dynamic_ports=(DynamicPort(label=PORT),)),),
        tasks=(task,),
    )
    return Job(
        id=plan.job_id,
        name=plan.job_id,
        namespace=address.namespace,
        region=address.region,
        datacenters=tuple(name.strip() for name in config.datacenter.split(",") if name.strip()),
        node_pool=config.node_pool,
        priority=config.priority,
        meta={
            META_POOL: config.sandbox_job_id,
            META_OWNER: plan.owner,
            META_NAME: plan.name,
            META_HOLDER: plan.holder,
        },
        task_groups=(group,),
    )

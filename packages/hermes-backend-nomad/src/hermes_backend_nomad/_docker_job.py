"""The job of a sandbox in a container of Nomad's Docker driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hermes_backend_nomad._job import Task
from hermes_backend_nomad._sandbox_job import (
    PORT,
    TASK,
    TLS_VARIABLE,
    SandboxPlan,
    resources_of,
    sandbox_job,
    secrets,
)
from hermes_core.sandbox import writable_arguments
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._config import NomadConfig
    from hermes_backend_nomad._job import Job
    from hermes_backend_nomad._runtime import Delivery

__all__ = ["RUNTIME_FETCHED", "RUNTIME_INSIDE", "docker_job"]

RUNTIME_INSIDE = "/opt/hermes"
RUNTIME_FETCHED = "/local/hermes"
"""The driver mounts a task's folder `local` there."""
DAEMON_FOLDER = "/run/hermes/daemon"
DAEMON_USER = "64999:64999"
"""Who the daemon becomes once it has made its /proc: nobody in particular, and without any rights."""
USERS = f"1${{NOMAD_PORT_{PORT}}}000:1${{NOMAD_PORT_{PORT}}}999"
"""Users of slots that have one each. A user is the same one in all containers of a node, and so is a port."""
NOMADS_FOLDERS = ("/secrets", "/alloc")
"""The driver mounts them into every container: the daemon's token, the socket of Nomad's own interface, logs."""
TASKS_FOLDER = "/local"
"""The driver leaves it open to all: slots with nothing but a user each could put another runtime in the place of one
that was fetched there, and would find what earlier ones left."""
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined")
"""Docker's own filters forbid what makes the namespaces of slots; each slot is bound to a filter of its own instead."""


def docker_job(config: NomadConfig, address: Address, delivery: Delivery, plan: SandboxPlan) -> Job:
    """Return the job of a sandbox in a container.

    With namespaces the daemon begins as root with the right to mount, covers the /proc that Docker masks with a fresh
    one, and gives up every right for good. Without, it stays root with the rights that Docker gives, and slots have a
    user each.
    """
    namespaces = plan.isolation in ("auto", "namespaces")
    program, *arguments = daemon_arguments(
        command=delivery.arguments,
        root="image",
        image_env=True,
        socket=f"{DAEMON_FOLDER}/socket",
        state=f"{DAEMON_FOLDER}/state",
        capacity=plan.slots,
        isolation=plan.isolation,
        tcp=f"0.0.0.0:${{NOMAD_PORT_{PORT}}}",
        tls_env=TLS_VARIABLE if config.tls else None,
        idle_end_s=config.idle_end_s,
        fresh_proc=namespaces,
        drop_to=DAEMON_USER if namespaces else None,
        uid_range=None if namespaces else USERS,
        **writable_arguments(config.writable, tasks_image=plan.image is not None),
        hide=NOMADS_FOLDERS,
        guard=(TASKS_FOLDER,),
    )
    made: dict[str, Any] = {
        "image": plan.image or config.image,
        "entrypoint": [program],
        "args": arguments,
        "work_dir": "/",
        "ports": [PORT],
        # Of a mount whose source is missing the engine complains; as a volume it would make an empty folder.
        "mount": [_mount(volume) for volume in (*_runtime_volume(delivery), *config.volumes)],
    }
    if namespaces:
        made |= {"cap_add": ["sys_admin"], "security_opt": list(UNCONFINED)}
    if config.privileged:
        made["privileged"] = True
    task = Task(
        name=TASK,
        driver="docker",
        user="0",
        config={name: value for name, value in made.items() if value != []},
        resources=resources_of(config),
        templates=(secrets(plan, tls=config.tls),),
        artifacts=delivery.artifacts,
    )
    return sandbox_job(config, address, plan, task)


def _runtime_volume(delivery: Delivery) -> list[str]:
    return [] if delivery.folder is None or delivery.fetched else [f"{delivery.folder}:{RUNTIME_INSIDE}"]


def _mount(volume: str) -> dict[str, Any]:
    source, target, *mode = volume.split(":")
    kind = "bind" if source.startswith("/") else "volume"
    return {"type": kind, "source": source, "target": target, "readonly": mode != ["rw"]}

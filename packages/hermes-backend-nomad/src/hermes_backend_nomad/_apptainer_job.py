"""The job of a sandbox in an Apptainer container that Nomad's raw_exec driver starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from hermes_backend_nomad._config import NomadSingularityConfig
    from hermes_backend_nomad._job import Job
    from hermes_backend_nomad._runtime import Delivery

__all__ = ["RUNTIME_INSIDE", "apptainer_job"]

RUNTIME_INSIDE = "/run/hermes/runtime"
"""Below /run, of which slots see nothing."""
SHARED_INSIDE = "/run/hermes/shared"
TASK_FOLDER = "${NOMAD_TASK_DIR}"
SHARED = f"{TASK_FOLDER}/shared"
HOME = f"{TASK_FOLDER}/home"
HANDED_ON = "APPTAINERENV_"
"""What Apptainer wants before the names of variables that are to be had inside."""
PREPARE = """
if [ "$(id -u)" = 0 ]; then
  echo "Apptainer needs an ordinary user to start it; name one of the nodes' users: -B user=NAME" >&2
  exit 2
fi
mkdir -p "$1" "$HOME" && shift && exec "$@"
"""
GPU_DEVICES = ("/dev/nvidia*", "/dev/dri")


def apptainer_job(
    config: NomadSingularityConfig, address: Address, delivery: Delivery, plan: SandboxPlan, image: str
) -> Job:
    """Return the job of a sandbox in a container that an ordinary user of the node starts.

    Nothing of the node is in a container but what is named: no home folder, no /tmp, no variables, none of the places
    that the site's configuration adds.
    """
    daemon = daemon_arguments(
        command=delivery.arguments,
        root="image",
        image_env=True,
        socket=f"{SHARED_INSIDE}/socket",
        state=f"{SHARED_INSIDE}/state",
        capacity=plan.slots,
        isolation=plan.isolation,
        tcp=f"${{NOMAD_IP_{PORT}}}:${{NOMAD_PORT_{PORT}}}",
        tls_env=TLS_VARIABLE if config.tls else None,
        idle_end_s=config.idle_end_s,
        devices=GPU_DEVICES if config.nv else (),
        **writable_arguments(config.writable, tasks_image=plan.image is not None),
    )
    # What bubblewrap wants to make a /dev, and is missing from that of a contained container.
    mounts = ["/dev/full", *_runtime_mount(delivery), f"{SHARED}:{SHARED_INSIDE}", *map(_read_only, config.binds)]
    engine = [
        *(config.executable, "--silent", "exec", "--userns", "--containall", "--no-home"),
        *("--no-mount", "hostfs,bind-paths", "--pwd", "/"),
        *(argument for mount in mounts for argument in ("--bind", mount)),
        *(("--nv",) if config.nv else ()),
        plan.image or image,
    ]
    task = Task(
        name=TASK,
        driver="raw_exec",
        user=config.user,
        config={"command": "/bin/sh", "args": ["-c", PREPARE, "hermes-sandbox", SHARED, *engine, *daemon]},
        # Not those of whoever the agent is.
        env={"HOME": HOME, "APPTAINER_CACHEDIR": f"{HOME}/cache", "APPTAINER_TMPDIR": HOME},
        resources=resources_of(config),
        templates=(secrets(plan, tls=config.tls, prefix=HANDED_ON),),
        artifacts=delivery.artifacts,
    )
    return sandbox_job(config, address, plan, task)


def _runtime_mount(delivery: Delivery) -> list[str]:
    if delivery.folder is None:
        return []
    folder = f"{TASK_FOLDER}/{delivery.folder.removeprefix('local/')}" if delivery.fetched else delivery.folder
    return [f"{folder}:{RUNTIME_INSIDE}:ro"]


def _read_only(bind: str) -> str:
    source, _, target = bind.partition(":")
    return f"{source}:{target or source}:ro"

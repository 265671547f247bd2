"""What a container for slots is made of."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from docker import errors
from docker.types import DeviceRequest, Mount

from hermes_core.sandbox import writable_arguments
from hermes_core.sandbox.portable import RUNTIME_INSIDE
from hermes_sandboxd import CLAIMS, daemon_arguments

if TYPE_CHECKING:
    from hermes_backend_docker._config import DockerConfig
    from hermes_backend_docker._images import Image
    from hermes_backend_docker._places import Place, PlaceName
    from hermes_core.sandbox import Runtime

__all__ = ["LABEL_NAME", "LABEL_OWNER", "LABEL_PLACE", "ContainerPlan", "create", "remove", "title_of"]

LABEL_OWNER, LABEL_NAME, LABEL_PLACE = "hermes.owner", "hermes.sandbox", "hermes.place"

SOCKETS_INSIDE = "/run/hermes/socket"
STATE_INSIDE = "/run/hermes/daemon/state"
STDIN = 0
REMOVE_S = 20.0
PAUSE_S = 0.02
CONFLICT = 409

CONFINEMENT = ("seccomp=unconfined", "apparmor=unconfined", "label=disable", "no-new-privileges")
"""Docker's own filters forbid what makes the namespaces of slots; each slot is bound to a filter of its own instead."""
DROPPED = ("AUDIT_WRITE", "FSETID", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SYS_CHROOT")
"""Of the capabilities that Docker gives to root, those that the daemon has no use for."""
LOADER_VARIABLES = ("LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""Meant for programs of the image, and harmful to the daemon's: only slots have them."""
GPU_DEVICES = ("/dev/nvidia*", "/dev/dri", "/dev/dxg")
"""What the engine puts into a container for a GPU."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container that is to be.

    Attributes:
        name: Whose sandbox it is, and which.
        title: The container's name on the engine.
        image: What it runs.
        asked_for: The image's name, if it is that of whoever leases, and not the configured one.
        slots: How many slots it hosts.
        place: Where its socket will be, on this machine.
        place_identity: Which machine and user that is.
        runtime: What launches the daemon.
        config: Everything else.
    """

    name: PlaceName
    title: str
    image: Image
    asked_for: str | None
    slots: int
    place: Place
    place_identity: str
    runtime: Runtime
    config: DockerConfig


def title_of(name: PlaceName) -> str:
    """Return a name for a container that no other has, and that people recognise."""
    return f"hermes-{re.sub(r'[^A-Za-z0-9_.-]', '-', name.name)[:60]}-{uuid.uuid4().hex[:8]}"


def create(client: Any, plan: ContainerPlan) -> None:  # noqa: ANN401 - the SDK has no types
    """Create a container, and do not start it yet. Blocks."""
    config = plan.config
    client.create_container(
        plan.image.id,
        name=plan.title,
        entrypoint=_command(plan),
        stdin_open=True,  # the daemon lives as long as somebody is attached
        user=config.user or "0",
        working_dir="/",
        healthcheck={"test": ["NONE"]},
        environment=dict.fromkeys(set(LOADER_VARIABLES) & plan.image.environment.keys()),
        use_config_proxy=False,  # what slots have would depend on who starts them
        labels={LABEL_OWNER: plan.name.owner, LABEL_NAME: plan.name.name, LABEL_PLACE: plan.place_identity},
        host_config=_host_config(client, plan),
    )
    if config.user is not None:
        client.put_archive(plan.title, "/", _folder_of(config.user))


def remove(client: Any, title: str) -> None:  # noqa: ANN401 - the SDK has no types
    """Remove a container, whatever runs in it, and wait until it is gone; one that is gone is no error. Blocks."""
    deadline = time.monotonic() + REMOVE_S
    while True:
        try:
            client.remove_container(title, force=True, v=True)
        except errors.NotFound:
            return
        except errors.APIError as error:
            # The engine removes it already, since it has ended.
            if error.status_code != CONFLICT or time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_S)


def _command(plan: ContainerPlan) -> list[str]:
    kept = {name: text for name, text in plan.image.environment.items() if name in LOADER_VARIABLES}
    return daemon_arguments(
        command=plan.runtime.arguments,
        root="image",
        socket=f"{SOCKETS_INSIDE}/{plan.place.socket.name}",
        state=STATE_INSIDE,
        capacity=plan.slots,
        lifeline_fd=STDIN,
        isolation=plan.config.isolation,
        image_env=True,
        slot_env=kept,
        **writable_arguments(plan.config.writable, tasks_image=plan.asked_for is not None),
        devices=(*plan.config.devices, *(GPU_DEVICES if plan.config.gpus is not None else ())),
        # The socket is this user's, whoever the daemon is: nobody else in the container can use it.
        socket_user=os.geteuid() if plan.config.user is None and os.geteuid() != 0 else None,
    )


def _host_config(client: Any, plan: ContainerPlan) -> dict[str, Any]:  # noqa: ANN401 - the SDK has no types
    config = plan.config
    [runtime] = plan.runtime.files
    memory = None if config.memory is None else int(config.memory)
    made: dict[str, Any] = client.create_host_config(
        auto_remove=True,  # when the process is gone that started it
        # A user is the same one in all containers of a machine and outside: no two slots may have the same. As a bind
        # and not a mount, since the engine then makes the folder.
        binds=[f"{CLAIMS}:{CLAIMS}:rw"] if config.user is None else [],
        mounts=[
            Mount(RUNTIME_INSIDE, str(runtime), type="bind", read_only=True),
            Mount(SOCKETS_INSIDE, str(plan.place.folder), type="bind"),
            *map(_mount, config.volumes),
        ],
        cap_drop=list(DROPPED),
        device_requests=_gpus(config.gpus),
        devices=[f"{path}:{path}:rwm" for path in config.devices],
        log_config={"Type": "none"},
        mem_limit=memory,
        memswap_limit=memory,
        nano_cpus=None if config.cpus is None else round(config.cpus * 1e9),
        network_mode=config.container_network,
        pids_limit=config.pids,
        security_opt=list(CONFINEMENT),
        shm_size=None if config.shm is None else int(config.shm),
    )
    # `systempaths=unconfined` of the command line: a slot's own /proc can be mounted only where none is covered.
    return {**made, "MaskedPaths": [], "ReadonlyPaths": []}


def _mount(volume: str) -> Mount:
    source, folder, *mode = volume.split(":")
    # Not as a bind of the older kind, for which the engine makes folders that are not there.
    return Mount(folder, source, type="bind" if source.startswith("/") else "volume", read_only=mode != ["rw"])


def _gpus(wanted: int | str | None) -> list[DeviceRequest] | None:
    if wanted is None:
        return None
    return [DeviceRequest(count=-1 if wanted == "all" else wanted, capabilities=[["gpu"]])]


def _folder_of(user: str) -> bytes:
    """Return an archive of the folders for a daemon's state, the last of which is its user's."""
    folders = [str(path) for path in PurePosixPath(STATE_INSIDE).parents][-2::-1]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in folders:
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            if folder == folders[-1]:
                entry.uid = int(user.partition(":")[0])
            archive.addfile(entry)
    return packed.getvalue()

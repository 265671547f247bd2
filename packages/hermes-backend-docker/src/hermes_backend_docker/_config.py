"""Settings of the backend `docker`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, StringConstraints

from hermes_core.sandbox import SlotSettings

__all__ = ["DockerConfig"]

Bytes = Annotated[ByteSize, Field(ge=6 << 20)]
"""Docker refuses less than 6 MiB."""
Volume = Annotated[str, StringConstraints(pattern=r"^[^:]+:/[^:]*(:(ro|rw))?$")]
Device = Annotated[str, StringConstraints(pattern=r"^/dev/[^:]+$")]
Folder = Annotated[str, StringConstraints(pattern=r"^/[^/]+")]
User = Annotated[str, StringConstraints(pattern=r"^\d+(:\d+)?$")]


class DockerConfig(SlotSettings):
    """Slots in containers of a Docker engine."""

    image: str | None = None
    """Image of the containers: any with a shell. By default the reference image, which is built on demand. A task's own
    image takes its place."""

    base_image: str = "debian:bookworm-slim"
    """What the reference image is built on: a Debian or a relative of it."""

    pull: Literal["missing", "never"] = "missing"
    """Whether an image that the engine does not have is pulled."""

    image_per_task: bool = False
    """Give each trajectory whose task has an image a container of its own. Otherwise the trajectories of a task share
    containers of its image, each in a slot."""

    parallel_builds: Annotated[int, Field(ge=1, le=64)] = 2
    """Images that are built at once."""

    prebuild: tuple[str, ...] = ()
    """Images that are built or pulled before anything starts, named as tasks name theirs. One that cannot be had then
    is said, and fails the tasks that need it."""

    writable: tuple[Folder, ...] = ()
    """Folders of the image, such as `/testbed`, of which every slot gets a copy that it may change. A copy is made for
    each lease, and counts as part of the workspace. `image` must have them; of tasks' own images those that do."""

    slots_per_sandbox: Annotated[int, Field(ge=1, le=1024)] = 16
    """Slots of one container."""

    max_sandboxes: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most containers at once; they are started as slots are needed."""

    cpus: Annotated[float, Field(gt=0)] | None = None
    """Processors of a container, in fractions."""

    memory: Bytes | None = None
    """Memory of a container, all its slots together."""

    pids: Annotated[int, Field(ge=16)] | None = None
    """Processes and threads of a container, all its slots together."""

    shm: Bytes | None = None
    """Size of a container's own /dev/shm. Slots have one each, as large as `tmp_bytes`, except at the level `user`."""

    gpus: Annotated[int, Field(ge=1)] | Literal["all"] | None = None
    """GPUs of a container, which all its slots share. Needs the NVIDIA container toolkit on the engine's machine."""

    devices: tuple[Device, ...] = ()
    """Devices of the engine's machine, such as `/dev/fuse`, that slots have as well."""

    container_network: str = "bridge"
    """Docker network of the containers. Slots whose policy is `host` are in it; with `none` there are no such slots."""

    volumes: tuple[Volume, ...] = ()
    """`SOURCE:FOLDER[:ro|rw]`, folders of the engine's machine or named volumes; `ro` if nothing is said. Slots see
    them and cannot change them."""

    user: User | None = None
    """`UID[:GID]` of the daemon in a container, root if None. As root it gives each slot a user of its own."""

    host: str | None = None
    """Address of the engine, as `unix:///var/run/docker.sock`. By default that of DOCKER_HOST, else the local one."""

    state_dir: Path | None = None
    """Folder for the sockets by which containers are reached, and for locks that tell which runs live. By default a
    private one below /run as root, else below $XDG_RUNTIME_DIR, or /tmp."""

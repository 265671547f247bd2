"""Settings of the backend `singularity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from hermes_core.sandbox import SlotSettings

__all__ = ["TASK", "SingularityConfig"]

Folder = Annotated[str, StringConstraints(pattern=r"^/[^/]+")]

TASK = "task"
"""The image of whoever leases a slot."""

OWN = ("/dev", "/etc", "/grading", "/home/agent", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/workspace")
"""What slots see here is not the container's."""


class SingularityConfig(SlotSettings):
    """Slots in Apptainer containers on this machine."""

    slots_per_sandbox: Annotated[int, Field(ge=1, le=1024)] = 16
    """Slots that one container hosts."""

    max_sandboxes: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most containers at once; they are started as slots are needed."""

    image: str | None = None
    """What slots run in: a `.sif` file, a folder with a root file system, or a source that Apptainer can convert, such
    as `docker://debian:12` or `docker-daemon:my-image:latest`. A task's own image takes precedence; `task` if every
    task brings one. By default the reference image, with Python (venv and pip), git, curl, wget, jq and util-linux,
    which is built once, in some minutes, when it is first needed."""

    base_image: Annotated[str, StringConstraints(pattern=r"^[^\n]+$")] = "docker://debian:bookworm-slim"
    """What the reference image is built on: a Debian or Ubuntu, given as `image` is."""

    binds: tuple[str, ...] = ()
    """Folders and files of this machine that slots may read, each as `PATH` or `PATH:WHERE` (absolute)."""

    writable: tuple[Folder, ...] = ()
    """Folders of the image, such as `/testbed`, of which every slot gets a copy that it may change. A copy is made for
    each lease, and counts as part of the workspace. `image` must have them; of tasks' own images those that do."""

    nv: bool = False
    """Whether containers get this machine's NVIDIA GPUs and their libraries (`apptainer exec --nv`)."""

    unpack: bool = True
    """Whether a `.sif` file is unpacked to `scratch_dir` before it is used. Programs start faster then; without
    it the image is read through FUSE, by one more process per container, and takes no space."""

    scratch_dir: Path | None = None
    """Where to make a folder for unpacked images and workspaces: on a disk of this machine. By default $SLURM_TMPDIR,
    $APPTAINER_TMPDIR, $SINGULARITY_TMPDIR, $TMPDIR or /tmp, the first that is set."""

    cache_dir: Path | None = None
    """Where to make a folder for images that were converted from another source, which machines may share. By default
    in $APPTAINER_CACHEDIR, $SINGULARITY_CACHEDIR, $HERMES_CACHE, $XDG_CACHE_HOME or ~/.cache, the first that is set."""

    executable: str | None = None
    """Name or path of the program; by default `apptainer`, else `singularity`, on PATH."""

    @field_validator("binds")
    @classmethod
    def _check_binds(cls, binds: tuple[str, ...]) -> tuple[str, ...]:
        for bind in binds:
            source, separator, target = bind.partition(":")
            if not source.startswith("/") or (separator and not target.startswith("/")) or ":" in target or "," in bind:
                raise ValueError(f"{bind!r}: must be PATH or PATH:WHERE, both absolute")
            if any(f"{target or source}/".startswith(f"{own}/") for own in OWN):
                raise ValueError(f"{bind!r}: slots have places of their own there; bind it elsewhere, PATH:/data/NAME")
        return binds

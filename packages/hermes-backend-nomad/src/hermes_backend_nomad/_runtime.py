"""How the daemon gets to where a sandbox runs."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from hermes_backend_nomad._job import Artifact
from hermes_backend_nomad._reach import closed_to
from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox.portable import build_runtime, fixed_runtime

if TYPE_CHECKING:
    from hermes_backend_nomad._address import Address

__all__ = ["Delivery", "deliver"]

IN_IMAGE = "image:"
FETCHED = "local/hermes"
"""Folder below a task's own into which an archive is fetched."""
SCHEMES = ("http://", "https://", "s3::", "git::", "gcs::")
HINT = "-B runtime=FOLDER on the nodes, runtime=image:FOLDER, or runtime=http://…/hermes.tar.gz"
SHARED_CACHE = "/var/tmp/hermes-runtime-{user}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The daemon's runtime folder, and how it gets to a sandbox.

    Attributes:
        arguments: The command that is the daemon's, up to its subcommand.
        folder: Where the folder is on the nodes, to be mounted; None if nothing has to be.
        fetched: Whether `folder` is below the task's own.
        artifacts: What nodes fetch first.
    """

    arguments: tuple[str, ...]
    folder: str | None = None
    fetched: bool = False
    artifacts: tuple[Artifact, ...] = ()


async def deliver(
    runtime: str | None, address: Address, inside: str, *, fetched_inside: str, everybody: bool
) -> Delivery:
    """Return how sandboxes get the daemon.

    Args:
        runtime: As in the settings.
        address: Of the agent.
        inside: Where the folder is mounted in sandboxes.
        fetched_inside: Where what nodes fetch is in sandboxes.
        everybody: Whether others than root must be able to read it.

    Raises:
        ConfigError: The setting makes no sense, or one is needed.
        BackendUnavailableError: The folder cannot be built here.
    """
    if runtime is None:
        if not address.here:
            raise ConfigError(
                f"Nomad's nodes are not this machine ({address}), and must find the daemon somewhere", hint=HINT
            )
        folder = await to_thread.run_sync(_own_folder, everybody)
        return Delivery(fixed_runtime(inside).arguments, str(folder))
    if runtime.startswith(IN_IMAGE):
        folder_inside = runtime.removeprefix(IN_IMAGE)
        if not folder_inside.startswith("/"):
            raise ConfigError(f"runtime {runtime!r} has no absolute path of a folder in the image", hint=HINT)
        return Delivery(fixed_runtime(folder_inside.rstrip("/")).arguments)
    if runtime.startswith(SCHEMES):
        return Delivery(fixed_runtime(fetched_inside).arguments, FETCHED, fetched=True, artifacts=(_archive(runtime),))
    if not runtime.startswith("/"):
        raise ConfigError(f"runtime {runtime!r} is neither an absolute path nor an address", hint=HINT)
    return Delivery(fixed_runtime(inside).arguments, runtime.rstrip("/"))


def _archive(source: str) -> Artifact:
    return Artifact(getter_source=source, relative_dest=FETCHED)


def _own_folder(everybody: bool) -> Path:
    folder = build_runtime()
    if not everybody or closed_to(None, folder) is None:
        return folder
    # The cache is in a private home, and the containers are somebody else's.
    shared = Path(SHARED_CACHE.format(user=os.geteuid()))
    shared.mkdir(mode=0o755, exist_ok=True)
    facts = shared.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise BackendUnavailableError(f"{shared} is not a folder that only this user can write", hint=HINT)
    return build_runtime(shared)

"""The command that starts a container with a daemon in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hermes_backend_singularity._engine import GLOBAL
from hermes_backend_singularity._gpus import GPU_DEVICES, gpu_variables
from hermes_backend_singularity._state import SOCKET
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_backend_singularity._state import RunFolder
    from hermes_core.sandbox import Runtime

__all__ = ["RUNTIME_INSIDE", "container_command"]

# Below /run, of which slots see nothing.
RUNTIME_INSIDE = "/run/hermes/runtime"
SHARED_INSIDE = "/run/hermes/shared"

KEEPER = """
exec 8>&2 9<"$1/mark" 2>/dev/null
folder=$1
shift
(exec "$@" 2>&8 8>&-)
status=$?
if [ $status -ge 128 ]; then
  for process in /proc/[0-9]*; do
    if [ "$process" != "/proc/$$" ] && [ "$process/fd/9" -ef "$folder/mark" ]; then
      kill -9 "${process#/proc/}"
    fi
  done
fi
rm -rf -- "$folder"
exit $status
"""
"""Runs the engine, and removes the folder of the container when it has ended, whoever is still there to see it.

When the engine is killed, what served the image to it is left; like everything below this shell it has descriptor 9."""


def container_command(
    engine: Path,
    image: Path,
    folder: RunFolder,
    runtime: Runtime,
    *,
    capacity: int,
    isolation: str,
    binds: Sequence[str],
    nv: bool,
) -> list[str]:
    """Return the command; the daemon's lifeline is its standard input.

    Nothing of this machine is in the container but what is named here: no home folder, no /tmp, no variables, none of
    the places that the site's configuration adds.

    Args:
        engine: The program.
        image: What to start.
        folder: The folder of this container.
        runtime: What launches the daemon from `RUNTIME_INSIDE`.
        capacity: Number of slots.
        isolation: Their level of isolation, or `auto`.
        binds: As in the configuration.
        nv: Whether to have GPUs.
    """
    daemon = daemon_arguments(
        socket=f"{SHARED_INSIDE}/{SOCKET}",
        state=f"{SHARED_INSIDE}/state",
        capacity=capacity,
        lifeline_fd=0,
        isolation=isolation,
        root="image",
        devices=GPU_DEVICES if nv else (),
        slot_env=gpu_variables() if nv else None,
        command=runtime.arguments,
    )
    (runtime_folder,) = runtime.files
    mounts = [f"{folder.shared}:{SHARED_INSIDE}", f"{runtime_folder}:{RUNTIME_INSIDE}:ro", *map(_read_only, binds)]
    return [
        *("/bin/sh", "-c", KEEPER, "hermes-sandbox", os.fspath(folder.path)),
        *(os.fspath(engine), *GLOBAL, "exec", "--containall", "--no-home", "--no-mount", "hostfs,bind-paths"),
        *("--pwd", "/"),
        # What bubblewrap wants to make a /dev, and is missing from that of a contained container.
        *("--bind", "/dev/full"),
        *(argument for mount in mounts for argument in ("--bind", mount)),
        *(("--nv",) if nv else ()),
        os.fspath(image),
        *daemon,
    ]


def _read_only(bind: str) -> str:
    source, _, target = bind.partition(":")
    return f"{source}:{target or source}:ro"

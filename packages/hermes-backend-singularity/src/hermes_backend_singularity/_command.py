"""The commands that start containers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_backend_singularity._engine import GLOBAL
from hermes_backend_singularity._gpus import GPU_DEVICES, gpu_variables
from hermes_backend_singularity._state import SOCKET
from hermes_core.sandbox import writable_arguments
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_backend_singularity._config import SingularityConfig
    from hermes_backend_singularity._state import RunFolder
    from hermes_core.sandbox import Runtime

__all__ = ["RUNTIME_INSIDE", "Launch"]

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


@dataclass(frozen=True, slots=True)
class Launch:
    """How containers are started; the same for all of a backend.

    Nothing of this machine is in a container but what is named here: no home folder, no /tmp, no variables, none of
    the places that the site's configuration adds.

    Attributes:
        engine: The program.
        runtime: What launches the daemon from `RUNTIME_INSIDE`.
        config: The backend's settings.
    """

    engine: Path
    runtime: Runtime
    config: SingularityConfig

    def daemon(self, image: Path, folder: RunFolder, capacity: int, *, asked_for: bool) -> list[str]:
        """Return the command that starts a container with a daemon; its standard input is the daemon's lifeline.

        Args:
            image: What to start.
            folder: The folder of this container.
            capacity: Number of slots.
            asked_for: Whether the image is that of whoever leases, and not the configured one.
        """
        config = self.config
        daemon = daemon_arguments(
            socket=f"{SHARED_INSIDE}/{SOCKET}",
            state=f"{SHARED_INSIDE}/state",
            capacity=capacity,
            lifeline_fd=0,
            isolation=config.isolation,
            root="image",
            # Scripts in an image may set some, which only the engine runs.
            image_env=True,
            **writable_arguments(config.writable, tasks_image=asked_for),
            devices=GPU_DEVICES if config.nv else (),
            slot_env=gpu_variables() if config.nv else {},
            command=self.runtime.arguments,
        )
        keeper = ("/bin/sh", "-c", KEEPER, "hermes-sandbox", os.fspath(folder.path))
        return [*keeper, *self._exec((f"{folder.shared}:{SHARED_INSIDE}",)), os.fspath(image), *daemon]

    def _exec(self, mounts: Sequence[str]) -> list[str]:
        (runtime_folder,) = self.runtime.files
        # What bubblewrap wants to make a /dev, and is missing from that of a contained container.
        own = ("/dev/full", f"{runtime_folder}:{RUNTIME_INSIDE}:ro", *mounts)
        return [
            # Slots need user namespaces anyway; with one the engine is the same whether it is installed set-uid or not.
            *(os.fspath(self.engine), *GLOBAL, "exec", "--userns", "--containall", "--no-home"),
            *("--no-mount", "hostfs,bind-paths", "--pwd", "/"),
            *(argument for mount in (*own, *map(_read_only, self.config.binds)) for argument in ("--bind", mount)),
            *(("--nv",) if self.config.nv else ()),
        ]


def _read_only(bind: str) -> str:
    source, _, target = bind.partition(":")
    return f"{source}:{target or source}:ro"

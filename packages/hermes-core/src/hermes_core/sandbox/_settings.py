"""Settings of the slots of a sandbox, the same for every backend that runs the daemon."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field

from hermes_core.sandbox._isolation import IsolationLevel, IsolationSetting, LimitValue

__all__ = ["SlotSettings"]

Count = Annotated[int, Field(ge=1)]
Bytes = Annotated[ByteSize, Field(ge=1)]
_LIMITS = (
    "memory_bytes",
    "processes",
    "open_files",
    "file_bytes",
    "workspace_bytes",
    "workspace",
    "tmp_bytes",
    "home_bytes",
)


class SlotSettings(BaseModel):
    """What every slot of a sandbox is like. Sizes may be written as `512MiB`.

    A backend's `Config` inherits these fields; what is not set keeps the daemon's default (docs/reference/protocol.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    isolation: IsolationSetting = "auto"
    """Isolation level: `namespaces`, `user` (one user per slot; the daemon must be root), `none`, or `auto` for the
    best that works, which is never `none` for more than one slot in a sandbox."""

    require_isolation: IsolationLevel | None = None
    """Refuse sandboxes whose slots have less than this."""

    network: Literal["none", "host"] = "none"
    """Network policy of slots for which nothing asks for more. An environment that declares `host` gets it."""

    memory_bytes: Bytes | None = None
    """Memory of all processes of a slot together."""

    processes: Count | None = None
    """Processes and threads of a slot alive at once."""

    open_files: Count | None = None
    """Descriptors of one process."""

    file_bytes: Bytes | None = None
    """Size of one file."""

    workspace_bytes: Bytes | None = None
    """Size of a workspace."""

    workspace: Literal["disk", "tmpfs"] | None = None
    """Where a workspace is: on `disk`, its size looked at once in a while, or in memory, its size exact."""

    tmp_bytes: Bytes | None = None
    """Size of /tmp, and of /dev/shm."""

    home_bytes: Bytes | None = None
    """Size of the home folder."""

    cpu_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds of processor time of each process of a command."""

    output_bytes: Annotated[ByteSize, Field(ge=0, le=64 << 20)] | None = None
    """Bytes that are kept of each output stream of a command."""

    max_reuses: Annotated[int, Field(ge=0)] | None = None
    """How often a slot is leased again before it is retired; None for no end."""

    def slot_limits(self) -> dict[str, LimitValue]:
        """Return the limits of a slot that are set here, as `slot.open` takes them."""
        values = ((name, getattr(self, name)) for name in _LIMITS)
        return {name: int(value) if isinstance(value, int) else value for name, value in values if value is not None}

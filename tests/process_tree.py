"""Which processes are below which, as the host sees them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["children", "supervisors_of"]


def children(pid: int) -> list[int]:
    """The children of a process."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]  # each thread has its own
    return [int(child) for text in lists for child in text.split()]


def supervisors_of(daemon: int) -> list[int]:
    """The supervisors of a daemon's slots: the children of the zygote, which is its only child."""
    return [pid for zygote in children(daemon) for pid in children(zygote)]

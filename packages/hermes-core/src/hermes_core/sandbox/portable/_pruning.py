"""Removes runtime folders that nobody uses any more: each version of Hermes and each interpreter makes its own."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_core.sandbox.portable._runtime import UNFINISHED, alone, runtimes_folder
from hermes_core.sandbox.portable._use import claimed, last_used
from hermes_sandboxd import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StoredRuntime", "prune_runtimes"]


@dataclass(frozen=True, slots=True)
class StoredRuntime:
    """A runtime folder that was found.

    Attributes:
        folder: Where it is.
        size_bytes: Of all its files.
        unused_s: Seconds since a process began to use it last.
        in_use: Whether a process uses it still, or that cannot be told.
        useless: Whether it was, or would be, removed.
    """

    folder: Path
    size_bytes: int
    unused_s: float
    in_use: bool
    useless: bool


def prune_runtimes(older_than_s: float, *, parent: Path | None = None, only_look: bool = False) -> list[StoredRuntime]:
    """Remove the runtime folders that no process uses, and that none has begun to use for so long.

    Blocks: call it in a thread.

    Args:
        older_than_s: For how many seconds.
        parent: Where they are kept; `runtimes_folder()` if None.
        only_look: Remove none.

    Returns:
        All that were there, those that stay too.

    Raises:
        OSError: One cannot be removed.
    """
    parent = parent or runtimes_folder()
    if not parent.is_dir():
        return []
    with alone(parent):  # whoever builds removes what is unfinished
        folders = sorted(path.parent for path in parent.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
        return [_prune(folder, older_than_s, only_look=only_look) for folder in folders]


def _prune(folder: Path, older_than_s: float, *, only_look: bool) -> StoredRuntime:
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with claimed(folder) as unused:
        unused_s = max(0.0, time.time() - last_used(folder))
        useless = unused and unused_s >= older_than_s
        if useless and not only_look:
            # At once gone for whoever looks for it, and forgotten even if this is interrupted.
            going = folder.with_name(f"{UNFINISHED}{folder.name}")
            folder.rename(going)
            shutil.rmtree(going)
    return StoredRuntime(folder, size_bytes, unused_s, not unused, useless)

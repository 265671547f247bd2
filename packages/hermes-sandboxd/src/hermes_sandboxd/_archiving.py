"""Packs folders and files of a slot (`slot.archive`)."""

from __future__ import annotations

from typing import Any, Callable

from hermes_sandboxd._packing import pack
from hermes_sandboxd._worker import Worker


class Archiving(Worker):
    """One `slot.archive`."""

    channel = "content"

    def work(self, write: Callable[[bytes], None]) -> dict[str, Any]:
        """Write the archive."""
        path = self.path.rstrip("/") or "/"
        limits = {name: self.params[name] for name in ("max_bytes", "max_entries")}
        return pack(path, write, **limits)._asdict()

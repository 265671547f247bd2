"""Lists folders inside a slot (`slot.list`)."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._files import refusing
from hermes_sandboxd._folders import Walk
from hermes_sandboxd._worker import Worker

if TYPE_CHECKING:
    from hermes_sandboxd._tar_reader import Parts


class Listing(Worker):
    """One `slot.list`."""

    channel = "entries"

    def work(self, write: Callable[[bytes], None]) -> dict[str, Any]:
        """Write a line for each entry."""
        path = self.path.rstrip("/") or "/"
        with refusing(path):
            status = os.lstat(path)
            if not stat.S_ISDIR(status.st_mode):
                write(_line((os.fsencode(os.path.basename(path)),), status))
                return {"entries": 1, "truncated": False, "unreadable": 0}
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self._list(root, write)

    def _list(self, root: int, write: Callable[[bytes], None]) -> dict[str, Any]:
        most = self.params["max_entries"]
        unreadable: list[Parts] = []
        walk = Walk(root, most, lambda parts, _: unreadable.append(parts), self.params["recursive"])
        entries = 0
        truncated = False
        for found in walk:
            if entries == most:
                truncated = True
                break
            write(_line(found.parts, found.status))
            entries += 1
        return {
            "entries": entries,
            "truncated": truncated or not walk.complete,
            "unreadable": len(unreadable),
        }


def _line(parts: Parts, status: os.stat_result) -> bytes:
    kind = _kind(status.st_mode)
    size = status.st_size if kind == "file" else 0
    path = b"/".join(parts).decode("utf-8", "replace")
    return json.dumps([path, kind, size, status.st_mtime]).encode() + b"\n"


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"

"""The folders of containers on this machine: which live, and what is left of those that do not."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from hermes_backend_singularity._locks import try_lock
from hermes_core.sandbox import SandboxInfo
from hermes_sandboxd import remove_tree

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from hermes_core.sandbox import SandboxState

__all__ = ["RunFolder", "clean_up", "inspect", "kill_marked", "sweep"]

SEPARATOR = "~"
LOCK = "lock"
MARK = "mark"
SHARED = "shared"
SOCKET = "socket"
NEW = ".new"
YOUNG_S = 60.0
KILL_S = 2.0

_logger = logging.getLogger(__name__)


class RunFolder:
    """What one container has on disk, for as long as this process holds its lock.

    `shared` is seen inside of the container: the daemon's socket, and its state with the workspaces. `mark` is a file
    that every process of the container has open, the engine's included, so that each can be told from any other.

    Args:
        root: The folder above all of them.
        owner: Whose container it is.
        name: Its name.
    """

    def __init__(self, root: Path, owner: str, name: str) -> None:
        self.path = root / f"{owner}{SEPARATOR}{name}"
        self._lock: int | None = None
        new = root / f"{self.path.name}{NEW}"
        new.mkdir(mode=0o700)
        # Locked before it has its name: nobody may ever see it free.
        self._lock = try_lock(new / LOCK)
        (new / MARK).touch(0o600)
        (new / SHARED).mkdir(0o700)
        new.rename(self.path)

    @property
    def shared(self) -> Path:
        """What the container sees of it."""
        return self.path / SHARED

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.shared / SOCKET

    @property
    def mark(self) -> Path:
        """The file that every process of the container has open."""
        return self.path / MARK

    def remove(self) -> None:
        """Remove it, whatever is in it, and let go of it."""
        try:
            _remove(self.path)
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None


def inspect(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Return the containers of an owner, or of everyone, by their folders."""
    found = []
    for folder in _folders(root):
        its_owner, _, name = folder.name.rpartition(SEPARATOR)
        if owner in (None, its_owner) and (seen := _look(folder)) is not None:
            found.append(SandboxInfo(name, its_owner, *seen))
    return found


def clean_up(root: Path, owner: str | None) -> list[SandboxInfo]:
    """End and remove what dead owners left, one's or everyone's; return what was removed."""
    left = [info for info in inspect(root, owner) if info.state == "left behind"]
    return [info for info in left if _end(root / f"{info.owner}{SEPARATOR}{info.name}")]


def sweep(root: Path) -> None:
    """Remove what is left of every owner that was killed."""
    clean_up(root, None)
    for folder in root.glob(f"*{NEW}"):
        if time.time() - folder.stat().st_mtime > YOUNG_S:
            _end(folder)


def kill_marked(mark: Path, spare: Collection[int] = ()) -> bool:
    """Kill every process that has a mark open, again and again; return whether none is left.

    Args:
        mark: The mark of a container.
        spare: Processes that are left alone.
    """
    deadline = time.monotonic() + KILL_S
    while pids := [pid for pid in _marked(mark) if pid not in spare]:
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(path for path in root.iterdir() if SEPARATOR in path.name and not path.name.endswith(NEW))
    except FileNotFoundError:
        return []


def _look(folder: Path) -> tuple[SandboxState, float] | None:
    try:
        age_s = max(0.0, time.time() - (folder / MARK).stat().st_mtime)
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        # Without its files it is being removed, unless whoever did that was killed.
        return ("left behind", 0.0) if folder.is_dir() and not (folder / LOCK).exists() else None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ("running" if (folder / SHARED / SOCKET).exists() else "starting"), age_s
    finally:
        os.close(descriptor)
    return "left behind", age_s


def _end(folder: Path) -> bool:
    """Kill what is left of a container whose owner is dead, and remove its folder; say whether nothing is left."""
    try:
        lock = try_lock(folder / LOCK)
    except OSError:
        return not folder.exists()
    if lock is None:
        return False  # somebody else is at it
    try:
        if not kill_marked(folder / MARK):
            _logger.warning("%s is left: a process cannot be killed", folder)
            return False
        _remove(folder)
    except OSError as error:
        _logger.warning("%s is left: %s", folder, error)
        return False
    finally:
        os.close(lock)
    return True


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):  # somebody was quicker
        remove_tree(os.fspath(folder))


def _marked(mark: Path) -> Iterator[int]:
    # A link's text is compared, which asks nothing of a file system that may hang; the folder may be removed already.
    wanted = {f"{mark}", f"{mark} (deleted)"}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid() and not wanted.isdisjoint(_open_files(entry.path)):
            yield int(entry.name)


def _open_files(process: str) -> Iterator[str]:
    try:
        names = os.listdir(f"{process}/fd")
    except OSError:
        return  # somebody else's, or gone
    for name in names:
        with suppress(OSError):
            yield os.readlink(f"{process}/fd/{name}")

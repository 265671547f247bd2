"""What this machine keeps of sandboxes: a folder for the socket of each, and a lock that tells who lives.

A lock is held by the process that started the sandbox, for as long as it has it; the kernel lets go of it with the
process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox import check_private_folder, check_socket_path, default_state_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Place", "PlaceName", "Places"]

SEPARATOR = "~"
LOCK = ".lock"
IDENTITY = ".id"
SOCKET = "s"


class PlaceName(NamedTuple):
    """Whose sandbox, and which."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}{SEPARATOR}{self.name}"


class Place:
    """The place of one sandbox of this process.

    Args:
        folder: Mounted into the container, where the daemon puts its socket.
        lock: Descriptor of the lock, which is held.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    @property
    def socket(self) -> Path:
        """The daemon's socket."""
        return self.folder / SOCKET

    def release(self) -> None:
        """Remove it, and let go of the lock; idempotent."""
        if self._lock >= 0:
            _remove(self.folder)
            os.close(self._lock)
            self._lock = -1


class Places:
    """The places of this user's sandboxes on this machine.

    Args:
        root: Folder of all of them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.identity = ""
        """Tells containers of this folder from those of other users and machines, once it was made."""

    @classmethod
    def open(cls, configured: Path | None, *, make: bool) -> Places | None:
        """Return the places below a folder, or below the default one; None if nobody made it yet and `make` is false.

        Raises:
            BackendUnavailableError: It cannot be made, or somebody else could meddle with it.
        """
        root = configured.absolute() if configured is not None else default_state_folder("hermes-docker")
        places = cls(root)
        try:
            if make:
                root.mkdir(mode=0o700, parents=configured is not None, exist_ok=True)
            elif not root.exists():
                return None
            check_private_folder(root)
            places.identity = _identity(root)
        except OSError as error:
            raise BackendUnavailableError(
                f"the state folder {root} cannot be used: {error.strerror}",
                hint="choose another: -B state_dir=FOLDER",
            ) from error
        return places

    def claim(self, name: PlaceName, user: int | None) -> Place:
        """Make the place of a sandbox and lock it.

        Args:
            name: Whose and which.
            user: Who runs the daemon, if that is not root.

        Raises:
            ConfigError: No socket can have so long a path, or the sandbox exists.
        """
        folder = self._folder(name)
        check_socket_path(folder / SOCKET, self._root)
        lock = _make_lock(_lock_of(folder))
        if lock is None:
            raise ConfigError(f"there is a sandbox {name.name} of {name.owner} already")
        folder.mkdir(mode=0o700, exist_ok=True)
        if user is not None and user != os.geteuid():
            os.chown(folder, user, -1)
        return Place(folder, lock)

    def names(self) -> list[PlaceName]:
        """The sandboxes that have a place here, whether they live or not."""
        found = []
        for entry in sorted(os.listdir(self._root)):
            owner, separator, name = entry.removesuffix(LOCK).rpartition(SEPARATOR)
            if separator and entry.endswith(LOCK):
                found.append(PlaceName(owner, name))
        return found

    def is_held(self, name: PlaceName) -> bool:
        """Whether the process that started a sandbox lives and has it."""
        with self._taken(name, fcntl.LOCK_SH) as taken:
            return not taken

    @contextmanager
    def clearing(self, name: PlaceName) -> Iterator[bool]:
        """Take the place of a sandbox whose process is dead, and remove it afterwards; False if it is not dead."""
        with self._taken(name, fcntl.LOCK_EX) as taken:
            yield taken
            if taken:
                _remove(self._folder(name))

    @contextmanager
    def _taken(self, name: PlaceName, how: int) -> Iterator[bool]:
        try:
            lock = os.open(_lock_of(self._folder(name)), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            yield True
            return
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(lock)

    def _folder(self, name: PlaceName) -> Path:
        return self._root / str(name)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + LOCK)


def _make_lock(path: Path) -> int | None:
    """Make a lock that nobody ever sees free, and return its descriptor; None if it is there already."""
    unnamed = path.with_name(f".{uuid.uuid4().hex}")
    descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.link(unnamed, path)
    except FileExistsError:
        os.close(descriptor)
        return None
    finally:
        unnamed.unlink()
    return descriptor


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_of(folder).unlink(missing_ok=True)


def _identity(root: Path) -> str:
    path = root / IDENTITY
    if not path.exists():
        unnamed = root / f".{uuid.uuid4().hex}"
        unnamed.write_text(uuid.uuid4().hex)
        try:
            os.link(unnamed, path)
        except FileExistsError:
            pass  # somebody else was quicker
        finally:
            unnamed.unlink()
    return path.read_text()

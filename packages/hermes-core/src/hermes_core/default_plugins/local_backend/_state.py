"""Where the daemons of this machine keep their sockets and workspaces."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox import SandboxInfo

__all__ = ["LOCK", "folder_of", "inspect", "socket_of", "state_root", "sweep"]

LOCK = ".hermes-sandboxd"
"""The daemon holds a lock on this file of its state folder as long as it lives."""

SEPARATOR = "~"
LONGEST_SOCKET_PATH = 107
LONGEST_DEFAULT = 40
"""A folder that nobody named must leave room for the names of sockets below it."""

YOUNG_S = 60.0

_logger = logging.getLogger(__name__)


def state_root(configured: Path | None) -> Path:
    """Return the folder above all state folders, made and checked.

    Raises:
        BackendUnavailableError: It cannot be made, or somebody else could meddle with it.
    """
    root = configured.absolute() if configured is not None else _default_root()
    try:
        root.mkdir(mode=0o711, parents=configured is not None, exist_ok=True)
        facts = root.lstat()
    except OSError as error:
        raise BackendUnavailableError(
            f"the state folder {root} cannot be made: {error.strerror}",
            hint="choose another: -B state_dir=FOLDER",
        ) from error
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise BackendUnavailableError(
            f"the state folder {root} is not a folder that only this user can write",
            hint="choose another: -B state_dir=FOLDER",
        )
    return root


def folder_of(root: Path, owner: str, name: str) -> Path:
    """Return the state folder of a sandbox.

    Raises:
        ConfigError: No socket can have so long a path.
    """
    folder = root / f"{owner}{SEPARATOR}{name}"
    if len(os.fsencode(socket_of(folder))) > LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"the state folder {root} has too long a path for a socket", hint="choose a shorter state_dir"
        )
    return folder


def socket_of(folder: Path) -> Path:
    """Return the path of the socket of a sandbox with that state folder."""
    return folder.with_name(folder.name + ".sock")


def inspect(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Return the sandboxes of an owner, or of everyone, by their state folders."""
    found = []
    for folder in sorted(root.iterdir()):
        its_owner, separator, name = folder.name.rpartition(SEPARATOR)
        if separator and folder.is_dir() and owner in (None, its_owner):
            found.append(SandboxInfo(name, its_owner, "running" if _is_locked(folder) else "left behind"))
    return found


def sweep(root: Path) -> None:
    """Remove what is left of sandboxes whose every process was killed at once.

    Folders with a lock are swept by the next daemon. Young entries are spared: their daemon may be starting.
    """
    for path in list(root.iterdir()):
        try:
            facts = path.lstat()
            if SEPARATOR not in path.name or facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < YOUNG_S:
                continue
            if stat.S_ISSOCK(facts.st_mode) and not _is_answered(path):
                path.unlink()
            elif stat.S_ISDIR(facts.st_mode) and not (path / LOCK).exists():
                shutil.rmtree(path)
        except OSError as error:
            _logger.debug("%s is left: %s", path, error)  # somebody else sweeps at the same time


def _default_root() -> Path:
    if os.geteuid() == 0:
        return Path("/run/hermes")  # every user can pass, which the users of the slots must
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK) and len(runtime) <= LONGEST_DEFAULT:
        return Path(runtime) / "hermes"
    temporary = tempfile.gettempdir()
    if len(temporary) > LONGEST_DEFAULT:
        temporary = "/tmp"  # sockets need short paths, and some tools set deep temporary folders
    return Path(temporary) / f"hermes-{os.geteuid()}"


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True  # somebody listens, and is busy
    return True


def _is_locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

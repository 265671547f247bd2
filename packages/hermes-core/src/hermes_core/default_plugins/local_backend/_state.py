"""Where the daemons of this machine keep their sockets and workspaces."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox import SandboxInfo
from hermes_sandboxd import remove_abandoned, remove_tree

if TYPE_CHECKING:
    from hermes_core.sandbox import SandboxState

__all__ = ["LOCK", "clean_up", "existing_root", "folder_of", "inspect", "socket_of", "state_root", "sweep"]

LOCK = ".hermes-sandboxd"
"""The daemon holds a lock on this file of its state folder as long as it lives."""

SEPARATOR = "~"
SOCKET_SUFFIX = ".sock"
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
    root = _root(configured)
    try:
        root.mkdir(mode=0o711, parents=configured is not None, exist_ok=True)
        facts = root.lstat()
    except OSError as error:
        raise BackendUnavailableError(
            f"the state folder {root} cannot be made: {error.strerror}",
            hint="choose another: -B state_dir=FOLDER",
        ) from error
    _check_ours(root, facts)
    return root


def existing_root(configured: Path | None) -> Path | None:
    """Return the folder above all state folders, checked, or None if nobody has made it yet.

    Raises:
        BackendUnavailableError: Somebody else could meddle with it.
    """
    root = _root(configured)
    try:
        facts = root.lstat()
    except OSError:
        return None
    _check_ours(root, facts)
    return root


def _root(configured: Path | None) -> Path:
    return configured.absolute() if configured is not None else _default_root()


def _check_ours(root: Path, facts: os.stat_result) -> None:
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise BackendUnavailableError(
            f"the state folder {root} is not a folder that only this user can write",
            hint="choose another: -B state_dir=FOLDER",
        )


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
    return folder.with_name(folder.name + SOCKET_SUFFIX)


def inspect(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Return the sandboxes of an owner, or of everyone, by their state folders and sockets."""
    found = []
    for folder in _folders(root):
        its_owner, _, name = folder.name.rpartition(SEPARATOR)
        if owner in (None, its_owner) and (seen := _look(folder)) is not None:
            found.append(SandboxInfo(name, its_owner, *seen))
    return found


def clean_up(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Remove what no process is left of, of an owner or of everyone; return what was removed."""
    left = [info for info in inspect(root, owner) if info.state == "left behind"]
    return [info for info in left if _remove(folder_of(root, info.owner, info.name))]


def sweep(root: Path) -> None:
    """Remove the little that is left of sandboxes whose every process was killed at once.

    Folders with a lock, which may be large, are swept by the next daemon.
    """
    for folder in _folders(root):
        seen = _look(folder)
        if seen is not None and seen[0] == "left behind" and not (folder / LOCK).exists():
            _remove(folder)


def _folders(root: Path) -> list[Path]:
    """The state folders of all sandboxes of which a folder or a socket is there."""
    names = {name.removesuffix(SOCKET_SUFFIX) for name in os.listdir(root) if SEPARATOR in name}
    return [root / name for name in sorted(names)]


def _look(folder: Path) -> tuple[SandboxState, float] | None:
    """The state and the age of a sandbox; None if it is gone, or somebody else's."""
    for path in (folder / LOCK, folder, socket_of(folder)):
        try:
            facts = path.lstat()
        except OSError:
            continue
        if facts.st_uid != os.geteuid():
            return None
        age_s = max(0.0, time.time() - facts.st_mtime)
        if path.name == LOCK:
            return ("running" if _is_locked(path) else "left behind"), age_s
        # A daemon listens, makes its folder and locks it, in this order, and removes its folder last.
        young = age_s < YOUNG_S or (stat.S_ISSOCK(facts.st_mode) and _is_answered(path))
        return ("starting" if young else "left behind"), age_s
    return None


def _remove(folder: Path) -> bool:
    """Remove a state folder, with or without a lock, and its socket; say whether nothing is left."""
    path = os.fspath(folder)
    try:
        if not remove_abandoned(path) and folder.exists():
            if (folder / LOCK).exists():
                return False  # somebody else is at it
            remove_tree(path)
        socket_of(folder).unlink(missing_ok=True)
    except OSError as error:
        _logger.warning("%s is left: %s", folder, error)
        return False
    return True


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


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

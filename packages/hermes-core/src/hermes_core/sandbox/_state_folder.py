"""Folders in which a backend keeps sockets and state on this machine."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from hermes_core.exceptions import BackendUnavailableError, ConfigError

__all__ = ["check_private_folder", "check_socket_path", "default_state_folder"]

LONGEST_SOCKET_PATH = 107
LONGEST_DEFAULT = 40
"""A folder that nobody named must leave room for the names of sockets below it."""


def default_state_folder(name: str) -> Path:
    """Return where a backend keeps its state if nobody says where: a folder of this user's, which need not exist.

    Args:
        name: Begins the folder's name.
    """
    if os.geteuid() == 0:
        return Path("/run") / name  # every user can pass, which the users of the slots must
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK) and len(runtime) <= LONGEST_DEFAULT:
        return Path(runtime) / name
    temporary = tempfile.gettempdir()
    if len(temporary) > LONGEST_DEFAULT:
        temporary = "/tmp"  # sockets need short paths, and some tools set deep temporary folders
    return Path(temporary) / f"{name}-{os.geteuid()}"


def check_private_folder(folder: Path, *, what: str = "state folder", setting: str = "state_dir") -> None:
    """See that a folder is this user's, and that nobody else can change what is in it.

    Args:
        folder: The folder.
        what: What it is to people.
        setting: Name of the setting that chooses another.

    Raises:
        BackendUnavailableError: Somebody else could meddle with it.
        OSError: There is none.
    """
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise BackendUnavailableError(
            f"the {what} {folder} is not a folder that only this user can write",
            hint=f"choose another: -B {setting}=FOLDER",
        )


def check_socket_path(path: Path, folder: Path) -> None:
    """See that a socket can have a path below a state folder.

    Raises:
        ConfigError: It is too long.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"the state folder {folder} has too long a path for a socket", hint="choose a shorter state_dir"
        )

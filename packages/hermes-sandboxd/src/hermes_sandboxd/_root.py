"""What slots see of the file system that the daemon runs in, read-only."""

from __future__ import annotations

import glob
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from hermes_sandboxd._bubblewrap import GRADING_FILES, HOME, INIT, TMP, VAR_TMP, WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_OWN = {path.split("/")[1] for path in (GRADING_FILES, INIT, TMP, WORKSPACE)}
"""Names at the top that mean something else in a slot."""

_NOT_SHOWN = {*_OWN, "dev", "etc", "lost+found", "proc", "run", "sys"}
_HOMES = os.path.dirname(HOME)
_ROOT_HOME = "/root"


class Root(NamedTuple):
    """What slots see."""

    arguments: tuple[str, ...]
    """Arguments for bubblewrap."""
    has_var: bool
    """Whether that includes /var."""
    has_var_tmp: bool
    """Whether there is a folder /var/tmp in it, over which each slot gets its own."""
    devices: tuple[str, ...] = ()
    """Paths below /dev that slots have besides the usual ones."""
    writable: tuple[str, ...] = ()
    """Folders of which every slot has a copy of its own in their place."""
    missing: tuple[str, ...] = ()
    """Folders that were to be among them if they are there, and are not."""


def host_root() -> Root:
    """Return what slots see of a machine that people use: its programs and libraries, and nothing else."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_LINKS:
        arguments += _shown("/" + name)
    return Root(tuple(arguments), False, False)


def image_root(hidden: Iterable[str]) -> Root:
    """Return what slots see of a container whose image is there for them: all of it.

    Not shown are places that each slot has of its own (/etc is prepared, see `_etc`), those of the kernel, /run, where
    engines put secrets, and `hidden`.

    Args:
        hidden: Folders of the daemon's own, and of the engine that runs the container.
    """
    hidden = [os.path.realpath(folder) for folder in hidden]
    top = (f"/{name}" for name in sorted(os.listdir("/")) if name not in _NOT_SHOWN)
    shown = [path for path in top if path not in (_HOMES, *hidden)]
    # A slot's home is a mount inside of this folder, so that only what is in it can be shown.
    shown += [path for path in _inside(_HOMES) if path != HOME]
    arguments = [argument for path in shown for argument in _shown(path)]
    for folder in hidden:
        if any(folder.startswith(path + "/") for path in shown) and os.path.isdir(folder):
            arguments += ["--perms", "0555", "--tmpfs", folder, "--remount-ro", folder]
    has_var = "/var" in shown and not os.path.islink("/var")
    return Root(tuple(arguments), has_var, os.path.isdir(VAR_TMP) and not os.path.islink(VAR_TMP))


def find_writable(wanted: Iterable[str], if_there: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the folders of which slots get copies.

    Args:
        wanted: Folders that have to be there.
        if_there: Folders that are left out where they are not.

    Raises:
        ValueError: One of them is not there, or something else in a slot, or not seen there.
    """
    found: list[str] = []
    for path, optional in (*((path, False) for path in wanted), *((path, True) for path in if_there)):
        path = os.path.normpath(path)
        if not path.startswith("/") or path in ("/", _HOMES, HOME) or path.split("/")[1] in _NOT_SHOWN:
            raise ValueError(f"{path}: not a folder that slots could have a copy of")
        if any(f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/") for other in found):
            raise ValueError(f"{path}: slots get a copy of it with another folder already")
        if os.path.isdir(path) and os.path.realpath(path) == path:
            found.append(path)
        elif not optional:
            raise ValueError(_why_not_there(path))
    return tuple(found)


def _why_not_there(path: str) -> str:
    if os.path.isdir(path):
        return f"{path}: slots cannot have a copy of a link; name {os.path.realpath(path)}"
    return f"{path}: no such folder for slots to have a copy of; name what the image has in `writable`"


def find_devices(patterns: Iterable[str]) -> tuple[str, ...]:
    """Return the paths below /dev that match patterns such as `/dev/nvidia*`."""
    found = sorted(path for pattern in patterns for path in glob.glob(pattern))
    return tuple(path for path in found if path.startswith("/dev/") and ".." not in path.split("/"))


def open_root_home() -> None:
    """Let everybody into the home folder of root, where images keep programs and data too.

    What is in there keeps its own permissions. Only for a container: its copy of the image is nobody else's.
    """
    try:
        os.chmod(_ROOT_HOME, stat.S_IMODE(os.stat(_ROOT_HOME).st_mode) | 0o055)
    except OSError:
        # There is none, or the container is read-only.
        pass


def _shown(path: str) -> list[str]:
    try:
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            return ["--symlink", os.readlink(path), path]
        if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o005 == 0o005 and not os.listdir(path):
            return ["--dir", path]
    except OSError:
        return []
    if stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode):
        return ["--ro-bind", path, path]
    return []


def _inside(folder: str) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return
    for name in names:
        yield os.path.join(folder, name)

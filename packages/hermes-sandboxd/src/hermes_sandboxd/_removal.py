"""Removes a folder tree that a stranger filled, relative to descriptors and without following links."""

from __future__ import annotations

import errno
import os
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_Identity = tuple[int, int]


def remove_tree(path: str) -> None:
    """Remove the folder `path` and everything in it.

    One descriptor walks down and, through "..", up again: a tree of any depth needs no more, and no recursion. Nobody
    else may be at work in the tree.

    Raises:
        OSError: Something cannot be removed. What could be is gone.
    """
    here = _open_folder(path, None)
    try:
        names: list[str] = []
        levels = [(_identity(here), _clear(here))]
        while True:
            folders = levels[-1][1]
            if folders:
                names.append(folders.pop())
                here = _step(here, _open_folder(names[-1], here))
                levels.append((_identity(here), _clear(here)))
            elif names:
                levels.pop()
                here = _step(here, os.open("..", _FOLDER, dir_fd=here))
                if _identity(here) != levels[-1][0]:
                    raise OSError(errno.ESTALE, "a folder was moved while it was being removed", path)
                os.rmdir(names.pop(), dir_fd=here)
            else:
                break
    finally:
        os.close(here)
    os.rmdir(path)


def _step(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(folder: int) -> _Identity:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def _clear(folder: int) -> list[str]:
    """Unlink what is not a folder; return the names of the folders."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def _open_folder(name: str, parent: int | None) -> int:
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        _allow(name, parent)
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
    if os.geteuid() and stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _allow(name: str, parent: int | None) -> None:
    # chmod that does not follow links does not exist everywhere; through a descriptor it cannot be misled.
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)

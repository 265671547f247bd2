"""Removes a folder tree that a stranger filled, relative to descriptors and without following links."""

from __future__ import annotations

import os
import stat
from typing import List

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove the folder `path` and everything in it.

    Folders inside are first moved to the top, so that a tree of any depth needs two descriptors and no recursion.

    Raises:
        OSError: Something cannot be removed. What could be is gone.
    """
    top = _open_folder(path, None)
    try:
        while True:
            folders = _clear(top, top)
            if not folders:
                break
            for name in folders:
                inner = _open_folder(name, top)
                try:
                    _clear(inner, top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _clear(folder: int, top: int) -> List[str]:
    """Unlink what is not a folder in `folder`; move the folders to `top`. Return the folders if they are the same."""
    folders = []
    with os.scandir(folder) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in listed:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
        elif folder == top:
            folders.append(name)
        else:
            _make_movable(name, folder)
            os.rename(name, f".removed-{os.urandom(12).hex()}", src_dir_fd=folder, dst_dir_fd=top)
    return folders


def _open_folder(name: str, parent: "int | None") -> int:
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        _allow(name, parent)
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
    if os.geteuid() and stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    return descriptor


def _make_movable(name: str, parent: int) -> None:
    # A folder that moves gets another "..", for which an ordinary user must be allowed to write it.
    if os.geteuid():
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if mode & 0o700 != 0o700:
            _allow(name, parent)


def _allow(name: str, parent: "int | None") -> None:
    # chmod that does not follow links does not exist everywhere; through a descriptor it cannot be misled.
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{descriptor}", 0o700)
    finally:
        os.close(descriptor)

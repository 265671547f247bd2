"""Copies a folder of an image for a slot."""

from __future__ import annotations

import os
import shutil
import stat

_Identity = tuple[int, int]


def copy_tree(source: str, target: str, uid: int | None) -> None:
    """Copy the folder `source` to `target`, which must not exist, and give all of it to somebody.

    Contents, modes (without the bits for set-uid), times, links and hard links are kept, so that programs which compare
    them (git, make) find nothing changed. Sockets, pipes and devices are left out.

    Args:
        source: Nobody may be at work in it.
        target: Where the copy is to be.
        uid: User and group of everything; None for this process's.

    Raises:
        OSError: Something cannot be copied, for lack of space for example.
    """
    os.mkdir(target, 0o700)
    known: dict[_Identity, str] = {}
    folders = [(source, target)]
    for here, there in folders:
        # The list grows while it is gone through: each folder comes before what is in it.
        with os.scandir(here) as entries:
            for entry in entries:
                copy = os.path.join(there, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(copy, 0o700)
                    folders.append((entry.path, copy))
                elif entry.is_symlink():
                    os.symlink(os.readlink(entry.path), copy)
                    _keep(entry.stat(follow_symlinks=False), copy, uid)
                elif entry.is_file(follow_symlinks=False):
                    _copy_file(entry, copy, known, uid)
    for here, there in reversed(folders):
        # Last, and from the bottom: what is put into a folder changes its time.
        _keep(os.lstat(here), there, uid)


def _copy_file(entry: os.DirEntry[str], copy: str, known: dict[_Identity, str], uid: int | None) -> None:
    found = entry.stat(follow_symlinks=False)
    identity = found.st_dev, found.st_ino
    if found.st_nlink > 1:
        if identity in known:
            os.link(known[identity], copy)
            return
        known[identity] = copy
    shutil.copyfile(entry.path, copy)
    _keep(found, copy, uid)


def _keep(found: os.stat_result, copy: str, uid: int | None) -> None:
    if uid is not None:
        os.chown(copy, uid, uid, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(copy, found.st_mode & 0o1777)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)

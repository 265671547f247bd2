"""Removes what a user left in the folders that every user of a machine can write: slots without a /tmp of their own."""

from __future__ import annotations

import os
import stat

from hermes_sandboxd._linux import remove_ipc
from hermes_sandboxd._removal import remove_tree

_SHARED = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock", "/run/shm")


def remove_residue(uid: int) -> None:
    """Remove everything of the user `uid` in the folders that are open to all, and in System V's tables.

    Only what lies directly in them, which is all that others leave open: a folder that somebody else opened to
    everybody is theirs to look after.

    Raises:
        OSError: Something cannot be removed.
    """
    seen = set()
    for shared in _SHARED:
        try:
            found = os.stat(shared)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            _clear(shared, uid)
    for kind in ("shm", "sem", "msg"):
        _clear_ipc(kind, uid)


def _clear(folder: str, uid: int) -> None:
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        try:
            found = entry.stat(follow_symlinks=False)
            if found.st_uid != uid:
                continue
            if stat.S_ISDIR(found.st_mode):
                remove_tree(entry.path)
            else:
                os.unlink(entry.path)
        except FileNotFoundError:
            # Somebody was quicker.
            continue


def _clear_ipc(kind: str, uid: int) -> None:
    try:
        with open(f"/proc/sysvipc/{kind}") as table:
            columns, *lines = (line.split() for line in table)
    except FileNotFoundError:
        # A kernel without it.
        return
    users = columns.index("uid"), columns.index("cuid")
    for line in lines:
        if str(uid) in (line[users[0]], line[users[1]]):
            remove_ipc(kind, int(line[1]))

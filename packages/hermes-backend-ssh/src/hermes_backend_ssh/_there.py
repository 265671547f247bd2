"""Looks after the sandboxes' folders. This file is run there, by the interpreter of a runtime folder.

Arguments: the folder for everything, the runtime folder, then `list`, `clean` or `settle`, and a name: of an owner for
the first two, where it may be missing, of a sandbox's folder for the last, followed by the process id of a daemon that
does not end by itself. Prints a JSON list of `[name, owner, state, age]`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK = ".hermes-sandboxd"
"""A daemon holds a lock on this file of its state folder as long as it lives."""

SEPARATOR, SUFFIX, UNFINISHED = "~", ".sock", ".unfinished-"
YOUNG_S = 60.0
UPLOAD_S = 24 * 3600.0
SETTLE_S = 3.0

Row = tuple[str, str, str, float]


def main(root: str, runtime: str, task: str, name: str | None = None, pid: str | None = None) -> list[Row]:
    """Do one task; return what was found or removed."""
    sys.path.insert(0, runtime)
    folder = os.path.join(root, "sandboxes")
    if task == "settle":
        if pid is not None:
            end(int(pid))
        return settle(folder, name or "")
    rows = [row for row in look(folder) if name in (None, row[1])]
    if task == "list":
        return rows
    clean_uploads(os.path.join(root, "runtimes"))
    return [row for row in rows if row[2] == "left behind" and remove(os.path.join(folder, path_of(row)))]


def path_of(row: Row) -> str:
    """Return the name of a sandbox's state folder."""
    return f"{row[1]}{SEPARATOR}{row[0]}"


def look(folder: str) -> list[Row]:
    """Return the sandboxes of which a folder or a socket is there."""
    names = {
        name[: -len(SUFFIX)] if name.endswith(SUFFIX) else name for name in os.listdir(folder) if SEPARATOR in name
    }
    return [row for name in sorted(names) for row in facts_of(folder, name)]


def facts_of(folder: str, title: str) -> Iterator[Row]:
    """Yield name, owner, state and age of a sandbox, if it is still there and ours."""
    owner, _, name = title.rpartition(SEPARATOR)
    path = os.path.join(folder, title)
    for found in (os.path.join(path, LOCK), path, path + SUFFIX):
        try:
            facts = os.lstat(found)
        except OSError:
            continue
        if facts.st_uid != os.geteuid():
            return
        age_s = max(0.0, time.time() - facts.st_mtime)
        if found.endswith(LOCK):
            yield name, owner, "running" if is_locked(found) else "left behind", age_s
        else:
            # A daemon listens, makes its folder and locks it, in this order, and removes its folder last.
            young = age_s < YOUNG_S or (stat.S_ISSOCK(facts.st_mode) and is_answered(folder, title + SUFFIX))
            yield name, owner, "starting" if young else "left behind", age_s
        return


def is_locked(path: str) -> bool:
    """Tell whether a daemon holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_answered(folder: str, name: str) -> bool:
    """Tell whether somebody listens on a socket."""
    os.chdir(folder)  # the path of a socket may not be long
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
    return True


def remove(path: str) -> bool:
    """Remove a state folder that nobody has, and its socket; tell whether nothing is left."""
    from hermes_sandboxd import remove_abandoned, remove_tree

    try:
        if not remove_abandoned(path) and os.path.isdir(path):
            if os.path.exists(os.path.join(path, LOCK)):
                return False  # somebody else is at it
            remove_tree(path)
        if os.path.lexists(path + SUFFIX):
            os.unlink(path + SUFFIX)
    except OSError as error:
        sys.stderr.write(f"{path} is left: {error}\n")
        return False
    return True


def settle(folder: str, title: str) -> list[Row]:
    """Wait until a sandbox that was ended is gone, or remove what is left of it; return it if it stays."""
    path = os.path.join(folder, title)
    deadline = time.monotonic() + SETTLE_S
    while os.path.lexists(path) or os.path.lexists(path + SUFFIX):
        if time.monotonic() > deadline:
            return [row for row in facts_of(folder, title) if not remove(path)]
        time.sleep(0.02)
    return []


def end(pid: int) -> None:
    """Kill a daemon that does not end by itself; what it forked tidies up after it."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def clean_uploads(folder: str) -> None:
    """Remove runtime folders that nobody finished."""
    from hermes_sandboxd import remove_tree

    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(UNFINISHED) and time.time() - os.lstat(path).st_mtime > UPLOAD_S:
            remove_tree(path)


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)

"""Looks after the sandboxes of a machine, by what daemons keep in one folder: a state folder and a socket each.

This file is also run on other machines, by the interpreter of whichever runtime folder is there. That may be another
version's: of `hermes_sandboxd` it uses nothing but `remove_abandoned` and `remove_tree`. Arguments: the folder for
everything, the runtime folder, then `list`, `clean` or `settle`, and a name: of an owner for the first two, where it
may be missing, of a sandbox's folder for the last, followed by the process id of a daemon that does not end by itself.
Prints a JSON list of `[name, owner, state, age]`.
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
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Literal

STATE_LOCK = ".hermes-sandboxd"
"""A daemon holds a lock on this file of its state folder as long as it lives."""

_SEPARATOR, _SUFFIX = "~", ".sock"
_RUNTIMES, _UNFINISHED = "runtimes", ".unfinished-"
_YOUNG_S = 60.0
_UPLOAD_S = 24 * 3600.0
_UNUSED_S = 30 * 24 * 3600.0
_SETTLE_S = 3.0


class SandboxFacts(NamedTuple):
    """A sandbox of which a folder or a socket is there."""

    name: str
    owner: str
    state: Literal["running", "starting", "left behind"]
    age_s: float

    @property
    def title(self) -> str:
        """Name of its state folder."""
        return sandbox_title(self.owner, self.name)


def sandbox_title(owner: str, name: str) -> str:
    """Return the name of a sandbox's state folder, below that of all sandboxes."""
    return f"{owner}{_SEPARATOR}{name}"


def socket_beside(folder: str) -> str:
    """Return the path of the socket of a sandbox, by its state folder."""
    return folder + _SUFFIX


def main(root: str, runtime: str, task: str, name: str | None = None, pid: str | None = None) -> list[SandboxFacts]:
    """Do one task; return what was found or removed."""
    sys.path.insert(0, runtime)
    folder = os.path.join(root, "sandboxes")
    if task == "settle":
        if pid is not None:
            _end(int(pid))
        return _settle(folder, name or "")
    found = [facts for facts in list_sandboxes(folder) if name in (None, facts.owner)]
    if task == "list":
        return found
    remove_unused_runtimes(os.path.join(root, _RUNTIMES), os.path.basename(runtime))
    return [facts for facts in found if facts.state == "left behind" and _remove(os.path.join(folder, facts.title))]


def list_sandboxes(folder: str) -> list[SandboxFacts]:
    """Return the sandboxes of this user that have something in a folder."""
    names = {
        name[: -len(_SUFFIX)] if name.endswith(_SUFFIX) else name for name in os.listdir(folder) if _SEPARATOR in name
    }
    found = (sandbox_facts(folder, name) for name in sorted(names))
    return [facts for facts in found if facts is not None]


def sandbox_facts(folder: str, title: str) -> SandboxFacts | None:
    """Return what is known of a sandbox; None if it is gone, or somebody else's.

    Args:
        folder: Of all sandboxes.
        title: Name of its state folder.
    """
    owner, _, name = title.rpartition(_SEPARATOR)
    path = os.path.join(folder, title)
    for found in (os.path.join(path, STATE_LOCK), path, socket_beside(path)):
        try:
            facts = os.lstat(found)
        except OSError:
            continue
        if facts.st_uid != os.geteuid():
            return None
        age_s = max(0.0, time.time() - facts.st_mtime)
        if found.endswith(STATE_LOCK):
            return SandboxFacts(name, owner, "running" if is_locked(found) else "left behind", age_s)
        # A daemon listens, makes its folder and locks it, in this order, and removes its folder last.
        young = age_s < _YOUNG_S or (stat.S_ISSOCK(facts.st_mode) and _is_answered(folder, socket_beside(title)))
        return SandboxFacts(name, owner, "starting" if young else "left behind", age_s)
    return None


def remove_sandbox(path: str) -> bool:
    """Remove a state folder that no daemon has, and its socket; tell whether nothing is left.

    Raises:
        OSError: Something cannot be removed.
    """
    from hermes_sandboxd import remove_abandoned, remove_tree

    if not remove_abandoned(path) and os.path.isdir(path):
        if os.path.exists(os.path.join(path, STATE_LOCK)):
            return False  # somebody else is at it
        remove_tree(path)
    if os.path.lexists(socket_beside(path)):
        os.unlink(socket_beside(path))
    return True


def is_locked(path: str) -> bool:
    """Tell whether somebody holds a lock on a file."""
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


def remove_unused_runtimes(folder: str, spared: str) -> None:
    """Remove runtime folders that nobody finished, or that nobody has used for long.

    Args:
        folder: Of all of them. A file `start` in each was touched when it was last used.
        spared: Name of one that stays.
    """
    from hermes_sandboxd import remove_tree

    running = _programs()
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        unfinished = name.startswith(_UNFINISHED)
        try:
            age_s = time.time() - os.lstat(path if unfinished else os.path.join(path, "start")).st_mtime
        except OSError:
            continue  # somebody else's doing
        in_use = name == spared or any(program.startswith(path + "/") for program in running)
        if age_s > (_UPLOAD_S if unfinished else _UNUSED_S) and not in_use:
            remove_tree(path)


def _programs() -> set[str]:
    """What the processes of this user run."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/exe"))
        except OSError:  # noqa: PERF203 - beside a system call it costs nothing
            continue  # it has ended, or is somebody else's
    return found


def _is_answered(folder: str, name: str) -> bool:
    """Tell whether somebody listens on a socket."""
    # By a descriptor of its folder: the path of a socket may not be long.
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(f"/proc/self/fd/{descriptor}/{name}")
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except BlockingIOError:
        return True  # somebody listens, and is busy
    finally:
        os.close(descriptor)
    return True


def _remove(path: str) -> bool:
    try:
        return remove_sandbox(path)
    except OSError as error:
        sys.stderr.write(f"{path} is left: {error}\n")
        return False


def _settle(folder: str, title: str) -> list[SandboxFacts]:
    """Wait until a sandbox that was ended is gone, or remove what is left of it; return it if it stays."""
    path = os.path.join(folder, title)
    deadline = time.monotonic() + _SETTLE_S
    while os.path.lexists(path) or os.path.lexists(socket_beside(path)):
        if time.monotonic() > deadline:
            facts = sandbox_facts(folder, title)
            return [] if facts is None or _remove(path) else [facts]
        time.sleep(0.02)
    return []


def _end(pid: int) -> None:
    """Kill a daemon that does not end by itself; what it forked tidies up after it."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)

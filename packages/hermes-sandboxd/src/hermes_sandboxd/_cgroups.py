"""Control groups for slots, where this process may make them: exact limits of memory and processes.

A slot's supervisor is moved into the slot's group once, before it starts anything, and everything that it starts is
born there. (Moving each command instead would cost a third of a millisecond per call, and come too late for one that
forks at once.) What the supervisor's memory was before stays accounted to the daemon.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_PREFIX = "hermes-"
_NO_LIMIT = "max"
_YOUNG_S = 60.0
_REMOVE_S = 1.0


class Breaches(NamedTuple):
    """How often each limit was hit since the group was made."""

    memory: int
    processes: int


class ControlGroup:
    """The group of one slot: a folder of each controller's tree."""

    def __init__(self, layout: _Layout, name: str) -> None:
        self._layout = layout
        self._folders = {controller: os.path.join(tree, name) for controller, tree in layout.trees.items()}

    def make(self, memory_bytes: int | None, processes: int | None) -> None:
        """Make the group with its limits; None is no limit.

        Raises:
            OSError: It cannot be made.
        """
        for folder in set(self._folders.values()):
            os.mkdir(folder)
        if memory_bytes is not None:
            self._write("memory", self._layout.memory_limit, memory_bytes)
        self._write("pids", "pids.max", _NO_LIMIT if processes is None else processes)

    def add(self, pid: int) -> None:
        """Move a process into the group."""
        for folder in set(self._folders.values()):
            _write(os.path.join(folder, "cgroup.procs"), pid)

    def event_files(self) -> tuple[int, int]:
        """Open the files that tell of breaches: of memory, of processes. They are the caller's."""
        memory = os.path.join(self._folders["memory"], self._layout.memory_events)
        processes = os.path.join(self._folders["pids"], "pids.events")
        return os.open(memory, os.O_RDONLY | os.O_CLOEXEC), os.open(processes, os.O_RDONLY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove the group; one that is gone is no error.

        Raises:
            OSError: Something lives in it.
        """
        for folder in set(self._folders.values()):
            try:
                os.rmdir(folder)
            except FileNotFoundError:  # noqa: PERF203 - beside a system call it costs nothing
                continue

    def _write(self, controller: str, name: str, value: object) -> None:
        _write(os.path.join(self._folders[controller], name), value)


class _Layout(NamedTuple):
    version: int
    trees: dict[str, str]
    """Controller to the folder in which groups may be made."""
    memory_limit: str
    memory_events: str


class ControlGroups:
    """Makes groups for the slots of one daemon.

    Raises:
        OSError: On making: groups cannot be made here; the message says why.
    """

    def __init__(self, daemon_id: str) -> None:
        self._layout = _find_layout()
        self._name = _name(daemon_id)
        trial = self.group(-1)
        try:
            trial.make(1 << 30, 64)
        finally:
            trial.remove()

    @property
    def version(self) -> int:
        """1 or 2."""
        return self._layout.version

    def group(self, slot: int) -> ControlGroup:
        """Return the group of a slot, which is still to be made."""
        return ControlGroup(self._layout, f"{self._name}-{slot}")

    def remove_abandoned(self) -> None:
        """Remove groups that daemons which were killed left behind: those in which nothing lives."""
        for tree in set(self._layout.trees.values()):
            for name in os.listdir(tree):
                if name.startswith(_PREFIX):
                    _remove_abandoned(os.path.join(tree, name))


def remove_groups(daemon_id: str) -> None:
    """Remove all groups of a daemon that cannot do so itself any more."""
    try:
        layout = _find_layout()
    except OSError:
        # It had none.
        return
    for tree in set(layout.trees.values()):
        for name in os.listdir(tree):
            if name.startswith(_name(daemon_id)):
                _remove_soon(os.path.join(tree, name))


def _remove_soon(folder: str) -> None:
    deadline = time.monotonic() + _REMOVE_S
    while time.monotonic() < deadline:
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:  # noqa: PERF203 - beside a system call it costs nothing
            return
        except OSError:
            # The kernel may not be quite done with what has just ended. What stays, a later daemon removes.
            time.sleep(0.001)


def _name(daemon_id: str) -> str:
    return f"{_PREFIX}{daemon_id[:12]}"


def _remove_abandoned(folder: str) -> None:
    try:
        # A slot that is being opened has a group with nothing in it, for a moment.
        if time.time() - os.stat(folder).st_mtime > _YOUNG_S:
            os.rmdir(folder)
    except OSError:
        # It is in use, or somebody else was quicker.
        pass


def read_events(memory_file: int, processes_file: int) -> tuple[bytes, bytes]:
    """Return what the files of `event_files` hold: as long as it is the same, nothing has happened."""
    return os.pread(memory_file, 4096, 0), os.pread(processes_file, 4096, 0)


def count_breaches(events: tuple[bytes, bytes]) -> Breaches:
    """Return what events tell."""
    return Breaches(_count(events[0], b"oom_kill "), _count(events[1], b"max "))


def _count(events: bytes, name: bytes) -> int:
    for line in events.splitlines():
        if line.startswith(name):
            return int(line[len(name) :])
    return 0


def _write(path: str, value: object) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _find_layout() -> _Layout:
    mounts = _mounts()
    own = _own_groups()
    trees: dict[str, str] = {
        controller: _below(mounts[controller], own[controller])
        for controller in ("memory", "pids")
        if controller in mounts and controller in own
    }
    if len(trees) == 2:
        for tree in trees.values():
            if not os.access(tree, os.W_OK):
                raise PermissionError(f"{tree} cannot be written")
        return _Layout(1, trees, "memory.limit_in_bytes", "memory.oom_control")
    if "" not in mounts:
        raise FileNotFoundError("no control groups for memory and processes are mounted")
    tree = _enabled(mounts[""], own.get("", "/"))
    return _Layout(2, {"memory": tree, "pids": tree}, "memory.max", "memory.events")


def _enabled(mount: tuple[str, str], own: str) -> str:
    """Return a folder of the unified tree whose groups can have the controllers, which are switched on there."""
    failures: list[OSError] = []
    for tree in dict.fromkeys((_below(mount, own), mount[1])):
        try:
            _switch_on(tree)
        except OSError as error:  # noqa: PERF203 - beside a system call it costs nothing
            failures.append(OSError(error.errno, f"{tree}: {error.strerror or error}"))
        else:
            return tree
    raise failures[0]


def _switch_on(tree: str) -> None:
    control = os.path.join(tree, "cgroup.subtree_control")
    with open(control, encoding="ascii") as file:
        missing = {"memory", "pids"} - set(file.read().split())
    if missing:
        _write(control, " ".join(f"+{name}" for name in sorted(missing)))
    if not os.access(tree, os.W_OK):
        raise PermissionError(f"{tree} cannot be written")


def _own_groups() -> dict[str, str]:
    """Return this process's group in each tree, by controller; that of the unified one under an empty name."""
    groups = {}
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                groups[controller] = path
    return groups


def _mounts() -> dict[str, tuple[str, str]]:
    """Return (the group at its root, where it is mounted) of each tree, by controller."""
    mounts = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind in ("cgroup", "cgroup2"):
                root, target = before.split()[3:5]
                for controller in options.split(",") if kind == "cgroup" else ("",):
                    mounts[controller] = root, target
    return mounts


def _below(mount: tuple[str, str], group: str) -> str:
    root, target = mount
    inside = os.path.relpath(group, root) if group.startswith(root.rstrip("/") + "/") else "."
    return os.path.normpath(os.path.join(target, inside))

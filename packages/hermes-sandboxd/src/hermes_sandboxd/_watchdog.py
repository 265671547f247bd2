"""Looks after the limits that the kernel does not hold: memory without a control group, and the workspace."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from hermes_sandboxd._reactor import READ

if TYPE_CHECKING:
    from hermes_sandboxd._surroundings import Surroundings

_MEMORY_S = 0.05
_WORKSPACE_S = 0.5
_MOST_INTERRUPTIONS = 3
_SHARE = 4
"""Of what a workspace may still grow: when so much of the file system is gone, it is measured."""
_PATIENCE = 5
"""Measuring takes at most one part in so many of a processor."""
_PATIENCE_UNASKED = 50
_UNASKED_S = (2.0, 15.0)
"""When nothing says that the workspace has grown, it is measured for one part in so many, after these seconds at the
soonest and at the latest."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_BLOCK_BYTES = 512


class Watchdog:
    """Looks at a slot once in a while for as long as something runs in it.

    Args:
        around: What the operations of the slot share.
        spec: The slot's.
    """

    def __init__(self, around: Surroundings, spec: dict[str, Any]) -> None:
        self._around = around
        limits = spec["limits"]
        self._memory_bytes = None if around.observed.grouped else limits["memory_bytes"]
        self._workspace_bytes = limits["workspace_bytes"] or 0
        self._counted = [around.workspace, *spec["copies"]]
        """Folders that count as part of the workspace."""
        self._watches_workspace = limits["workspace_bytes"] is not None and limits["workspace"] == "disk"
        self._tolerated = self._workspace_bytes
        """What the workspace had when its growth was last stopped: below that, who tidies up is left alone."""
        self._own_memory = () if spec["level"] != "namespaces" else ("/tmp", "/dev/shm", spec["home"])
        self._size = 0
        self._free_bytes = _free_bytes(self._around.workspace)
        self._pause_s = _WORKSPACE_S
        self._unasked_s = _UNASKED_S[0]
        self._measuring = -1
        self._worker = 0
        self._began = time.monotonic()
        self._kills = 0
        self._interrupted = 0
        self._settling = False
        self._busy = False

    def wake(self) -> None:
        """Something begins to run."""
        self._busy = True
        reactor = self._around.reactor
        if self._memory_bytes is not None and not reactor.has_timer(self._look_at_memory):
            reactor.set_timer(time.monotonic() + _MEMORY_S, self._look_at_memory)
        if self._watches_workspace and not reactor.has_timer(self._look_at_workspace):
            reactor.set_timer(time.monotonic() + self._pause_s, self._look_at_workspace)

    def rest(self) -> None:
        """It has ended. The next look finds out whether anything runs in the background."""
        self._busy = False

    def _watches(self) -> bool:
        """Tell whether to look again; many short commands are looked at like one long one."""
        return self._busy or bool(self._around.children or self._around.processes.survivors())

    # Memory.

    def _look_at_memory(self) -> None:
        assert self._memory_bytes is not None
        if not self._watches():
            return
        self._around.reactor.set_timer(time.monotonic() + _MEMORY_S, self._look_at_memory)
        sizes = {pid: _resident(pid) for pid in self._around.processes.read()}
        files = sum(map(_file_system_bytes, self._own_memory))
        if sum(sizes.values()) + files > self._memory_bytes and sizes:
            # As the kernel would: the largest goes, and whoever waits for it learns why.
            self._around.breach("memory")
            self._around.processes.kill_one(max(sizes, key=lambda pid: sizes[pid]))

    # The workspace.

    def _look_at_workspace(self) -> None:
        if self._measuring >= 0 or not self._watches():
            return
        now = time.monotonic()
        # What is left of the whole file system tells whether this slot can have grown at all. Only the deletions of
        # others could hide it, so that it is measured from time to time whatever is left: the sooner the less it costs.
        taken = self._free_bytes - _free_bytes(self._around.workspace)
        if taken <= (self._tolerated - self._size) // _SHARE and now - self._began < self._unasked_s:
            self._around.reactor.set_timer(now + self._pause_s, self._look_at_workspace)
        else:
            self._measure_workspace()

    def _measure_workspace(self) -> None:
        """Add up the files of the workspace in a child: there may be hundreds of thousands."""
        self._free_bytes = _free_bytes(self._around.workspace)
        reading, writing = os.pipe()
        self._began = time.monotonic()
        self._kills = self._around.processes.kills
        try:
            pid = self._around.fork()
        except OSError:
            # The agent has used up its processes; it is looked at again.
            os.close(reading)
            os.close(writing)
            self._around.reactor.set_timer(time.monotonic() + self._pause_s, self._look_at_workspace)
            return
        if pid == 0:
            try:
                size = sum(map(_tree_bytes, self._counted))
                os.write(writing, f"{size} {time.process_time()}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        self._worker, self._measuring = pid, reading
        self._around.reactor.add(reading, READ, lambda _: self._measured())
        self._around.reactor.set_timer(self._began + _WORKSPACE_S, self._look_after_child)

    def _look_after_child(self) -> None:
        """See that nobody has stopped the child, so that it would never end."""
        if self._around.look_at(self._worker) is None:
            self._around.reactor.set_timer(time.monotonic() + _WORKSPACE_S, self._look_after_child)
        else:
            self._worker = 0

    def _measured(self) -> None:
        self._around.reactor.clear_timer(self._look_after_child)
        text = os.read(self._measuring, 64)
        self._around.reactor.remove(self._measuring)
        os.close(self._measuring)
        self._measuring = -1
        if self._worker:
            # It has said all it can; who would stop it now comes too late.
            os.kill(self._worker, signal.SIGKILL)
            self._around.reap(self._worker)
        now = time.monotonic()
        size_text, _, cost_text = text.partition(b" ")
        taken_s = now - self._began
        # On a busy machine it takes long and costs little, and is no reason to look away.
        cost_s = float(cost_text or taken_s)
        self._pause_s = max(_WORKSPACE_S, _PATIENCE * cost_s, taken_s)
        self._unasked_s = min(max(_UNASKED_S[0], _PATIENCE_UNASKED * cost_s), _UNASKED_S[1])
        if text:
            self._interrupted = 0
        elif self._kills == self._around.processes.kills:
            # Nobody here has killed the child, so that the agent has: it may do so a few times.
            self._interrupted += 1
        size = int(size_text or 0)
        breached = not self._settling and (size > self._tolerated or self._interrupted >= _MOST_INTERRUPTIONS)
        if text:
            self._size = size
            self._tolerated = max(self._workspace_bytes, size)
        self._settling = breached
        if breached:
            self._interrupted = 0
            self._around.breach("workspace")
            self._around.end_commands()
            # It has grown on while it was measured; what it has now is what is tolerated.
            self._measure_workspace()
        elif self._watches():
            self._around.reactor.set_timer(now + self._pause_s, self._look_at_workspace)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def _free_bytes(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _file_system_bytes(path: str) -> int:
    try:
        found = os.statvfs(path)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _tree_bytes(path: str) -> int:
    total = 0
    folders = [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += found.st_blocks * _BLOCK_BYTES
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # noqa: PERF203 - beside a system call it costs nothing
            # It is gone, or closed to its own user.
            continue
    return total

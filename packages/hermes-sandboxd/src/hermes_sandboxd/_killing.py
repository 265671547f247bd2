"""Ends the processes of a slot, from outside its pid namespace.

Everything that outlives its command hangs below PID 1 of the slot, so one tiny read tells whether anything did. The
/proc that is read here is the slot's own: this process has joined its mount namespace.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

_ORPHANS = "/proc/1/task/1/children"
_SELECTIVE_S = 0.5
_TOTAL_S = 1.5
_PAUSE_S = 0.0005
_MANY = 256
_PF_EXITING = 4

Processes = dict[int, tuple[int, int, int]]
"""Inner pid to (parent, start time, session): pid and start time together name a process for good."""


class SlotProcesses:
    """The processes inside one slot, PID 1 excepted."""

    def __init__(self, orphans: str = _ORPHANS) -> None:
        try:
            self._orphans = os.open(orphans, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel without CONFIG_PROC_CHILDREN: the whole of /proc is read each time instead.
            self._orphans = -1

    def survivors(self, jobs: bool = False) -> Processes:
        """Return what is alive between two commands; `jobs` says whether there is more than orphans."""
        if not jobs and self._orphans >= 0 and not os.pread(self._orphans, 64, 0):
            return {}
        return _read_processes()

    def find_new(self, known: Container[int]) -> tuple[int, int]:
        """Return the inner pid and the start time of a program that was just started here and not reaped yet.

        Args:
            known: Inner pids of the other programs that were started from here and may run.
        """
        for pid, (parent, start, _) in _read_processes(ended=True).items():
            # Only what was started from outside has no parent in there.
            if parent == 0 and pid not in known:
                return pid, start
        raise RuntimeError("a program that was started cannot be found")

    def kill_session(self, leader: tuple[int, int]) -> bool:
        """Kill the session of a program that was found by `find_new`, and every descendant.

        Returns:
            Whether all of it is gone; if not, the slot must be given up.
        """
        start = time.monotonic()
        sessions = {leader[0]}
        while True:
            victims = _members(leader, sessions)
            if not victims:
                return True
            spent = time.monotonic() - start
            if spent > _TOTAL_S:
                return False
            if spent > _SELECTIVE_S:
                self._kill_all()
            else:
                _kill_each(victims)
            time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Close what is open."""
        if self._orphans >= 0:
            os.close(self._orphans)

    def are_ending(self) -> bool:
        """Tell whether PID 1 is on its way out, which kills everything else."""
        fields = _read_stat("1")
        return fields is None or bool(int(fields[6]) & _PF_EXITING)

    def kill(self, spared: Processes, command: int) -> int | None:
        """Kill everything that is not in `spared` or a descendant of it.

        Args:
            spared: Processes that live on.
            command: Outer pid of the running command, which is reaped.

        Returns:
            The wait status of `command`; None if the slot could not be cleaned in time and must be given up.
        """
        start = time.monotonic()
        status: int | None = None
        while True:
            spent = time.monotonic() - start
            if spent > _TOTAL_S:
                return None
            victims = _victims(spared) if spared else []
            if spared and spent < _SELECTIVE_S and len(victims) < _MANY:
                _kill_each(victims)
            else:
                # Who forks faster than it can be listed loses its background processes too: one call of
                # kill(-1) from inside is atomic.
                victims = [] if self._kill_all() else _victims({})
                _kill_each(victims)
                spared = {}
            if status is None:
                pid, found = os.waitpid(command, os.WNOHANG)
                status = found if pid else None
            if status is not None and not victims and not _victims(spared):
                return status
            time.sleep(_PAUSE_S)

    def _kill_all(self) -> bool:
        try:
            child = os.fork()
        except OSError:
            return False
        if child == 0:
            try:
                os.kill(-1, signal.SIGKILL)
            finally:
                os._exit(0)
        # The agent can stop or kill the child in the instant before it acts, so it is not waited for without end.
        for _ in range(200):
            if os.waitpid(child, os.WNOHANG)[0]:
                return True
            time.sleep(_PAUSE_S)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False


def _read_processes(ended: bool = False) -> Processes:
    processes: Processes = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            fields = _read_stat(name)
            # A zombie does nothing any more, and whoever must reap it is somebody else's child.
            if fields is not None and (ended or fields[0] not in (b"Z", b"X")):
                processes[int(name)] = (int(fields[1]), int(fields[19]), int(fields[3]))
    return processes


def _read_stat(name: str) -> list[bytes] | None:
    try:
        descriptor = os.open(f"/proc/{name}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The name of a program may hold blanks and parentheses; what follows its last parenthesis may not.
        return os.read(descriptor, 4096).rpartition(b") ")[2].split()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _victims(spared: Processes) -> list[int]:
    processes = _read_processes()
    alive = {pid for pid, entry in processes.items() if pid in spared and spared[pid][1] == entry[1]}
    # Who lost its parent meanwhile is known by its session: nobody can enter one that was there before.
    sessions = {processes[pid][2] for pid in alive} - {0}
    victims = []
    for pid, (_, _, session) in processes.items():
        ancestor = pid
        while ancestor not in alive and ancestor in processes:
            ancestor = processes[ancestor][0]
        if ancestor not in alive and session not in sessions:
            victims.append(pid)
    return victims


def _members(leader: tuple[int, int], sessions: set[int]) -> list[int]:
    """Return the processes of `sessions` and all below them; their sessions are added."""
    processes = _read_processes()
    pid, start = leader
    if pid in processes and processes[pid][1] != start:
        # The number means another process by now, so that nothing of the session can be left.
        return []
    members = {pid for pid, entry in processes.items() if entry[2] in sessions}
    size = -1
    while size < len(members):
        size = len(members)
        members |= {pid for pid, entry in processes.items() if entry[0] in members}
    # Below the leader, sessions are only made, never entered.
    sessions.update(processes[pid][2] for pid in members)
    return list(members)


def _kill_each(pids: list[int]) -> None:
    for pid in pids:
        try:
            # A descriptor of the slot's /proc/PID serves as a pidfd: the number itself means another process here.
            descriptor = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:
            pass
        finally:
            os.close(descriptor)

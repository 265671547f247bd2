"""Ends the processes of a slot, from outside its pid namespace.

Everything that outlives its command hangs below PID 1 of the slot, so one tiny read tells whether anything did. The
/proc that is read here is the slot's own: this process has joined its mount namespace.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Callable

from hermes_sandboxd._spawning import become_user

if TYPE_CHECKING:
    import resource
    from collections.abc import Collection, Container, Iterable

_ORPHANS = "/proc/1/task/1/children"
_SELECTIVE_S = 0.5
_TOTAL_S = 1.5
_PAUSE_S = 0.0005
_MANY = 256
_STOPPING_ROUNDS = 20
_PF_EXITING = 4

Processes = dict[int, tuple[int, int, int]]
"""Inner pid to (parent, start time, session): pid and start time together name a process for good."""


class SlotProcesses:
    """The processes inside one slot with a pid namespace of its own, PID 1 excepted.

    Args:
        orphans: The file that lists the children of PID 1.
        own: Descriptor of the file that lists this process's children; -1 where the kernel has none.
    """

    def __init__(self, orphans: str = _ORPHANS, own: int = -1) -> None:
        self._own = own
        # PID 1 is adopted by this process when bubblewrap has ended.
        self._own_at_rest = os.pread(own, 64, 0) if own >= 0 else b""
        self.kills = 0
        """How often everything was killed that a command had started."""
        try:
            self._orphans = os.open(orphans, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # A kernel without CONFIG_PROC_CHILDREN: the whole of /proc is read each time instead.
            self._orphans = -1

    def survivors(self) -> Processes:
        """Return what is alive between two commands."""
        if self._own >= 0 and os.pread(self._own, 64, 0) == self._own_at_rest:
            if self._orphans >= 0 and not os.pread(self._orphans, 64, 0):
                return {}
        return self.read()

    def read(self, ended: bool = False) -> Processes:
        """Return everything that is alive; `ended` says whether to return what has ended and is not reaped, too."""
        return _read_processes(ended)

    def _starter(self) -> int:
        # Only what was started from outside has no parent in there.
        return 0

    def find_new(self, known: Container[int]) -> tuple[int, int]:
        """Return the inner pid and the start time of a program that was just started here and not reaped yet.

        Args:
            known: Inner pids of the other programs that were started from here and may run.
        """
        starter = self._starter()
        # The youngest: a child of this process that does some work for it may be about as well.
        found = max(
            (start, pid)
            for pid, (parent, start, _) in self.read(ended=True).items()
            if parent == starter and pid not in known
        )
        return found[1], found[0]

    def kill_session(self, leader: tuple[int, int]) -> bool:
        """Kill the session of a program that was found by `find_new`, and every descendant.

        Returns:
            Whether all of it is gone; if not, the slot must be given up.
        """
        start = time.monotonic()
        sessions = {leader[0]}
        while True:
            victims = _members(self.read(), leader, sessions)
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
        for descriptor in (self._orphans, self._own):
            if descriptor >= 0:
                os.close(descriptor)

    def are_ending(self) -> bool:
        """Tell whether PID 1 is on its way out, which kills everything else."""
        fields = _read_stat("1")
        return fields is None or bool(int(fields[6]) & _PF_EXITING)

    def kill(self, spared: Processes, command: int) -> tuple[int, resource.struct_rusage] | None:
        """Kill everything that is not in `spared` or a descendant of it.

        Args:
            spared: Processes that live on.
            command: Outer pid of the running command, which is reaped.

        Returns:
            The wait status of `command` and what it used; None if the slot could not be cleaned in time and must be
            given up.
        """
        self.kills += 1
        start = time.monotonic()
        ended: tuple[int, resource.struct_rusage] | None = None
        while True:
            spent = time.monotonic() - start
            if spent > _TOTAL_S:
                return None
            victims = _victims(self.read(), spared) if spared else []
            if spared and spent < _SELECTIVE_S and len(victims) < _MANY:
                _kill_each(victims)
            else:
                # Who forks faster than it can be listed loses its background processes too: one call of
                # kill(-1) from inside is atomic.
                victims = [] if self._kill_all() else list(self.read())
                _signal_each(victims, signal.SIGSTOP)
                _kill_each(victims)
                spared = {}
            if ended is None:
                pid, status, usage = os.wait4(command, os.WNOHANG)
                ended = (status, usage) if pid else None
            if ended is not None and not victims and not _victims(self.read(), spared):
                return ended
            time.sleep(_PAUSE_S)

    def kill_one(self, pid: int) -> None:
        """Kill one process, by its inner pid."""
        _kill_each([pid])

    def end(self) -> None:
        """Kill everything for good: the supervisor is about to end."""

    def _kill_all(self) -> bool:
        return _in_child(_kill_all_inside)


class BareProcesses(SlotProcesses):
    """The processes of a slot that shares the daemon's pid namespace: the descendants of its supervisor.

    The supervisor adopts every orphan among them, so that none can get away.

    Args:
        uid: The slot's user, all of whose processes are the slot's; None if it has none of its own.
        own: As of `SlotProcesses`.
        others: Children of this process that are not the slot's, and neither are their descendants.
    """

    def __init__(self, uid: int | None, own: int = -1, others: Collection[int] = ()) -> None:
        super().__init__("/dev/null", own)
        self._uid = uid
        self._others = others

    def _starter(self) -> int:
        return os.getpid()

    def read(self, ended: bool = False) -> Processes:
        """Return everything that is alive; see `SlotProcesses.read`."""
        processes = _read_processes(ended)
        me = os.getpid()
        is_own = dict.fromkeys(self._others, False)
        is_own[me] = False
        for pid in processes:
            line = []
            ancestor = pid
            while ancestor not in is_own and ancestor in processes:
                line.append(ancestor)
                ancestor = processes[ancestor][0]
            below = ancestor == me or is_own.get(ancestor, False)
            is_own.update(dict.fromkeys(line, below))
        return {pid: entry for pid, entry in processes.items() if is_own[pid]}

    def are_ending(self) -> bool:
        """There is no PID 1 of the slot that could end."""
        return False

    def end(self) -> None:
        """Kill everything for good, as far as that can be done in a second and a half."""
        deadline = time.monotonic() + _TOTAL_S
        while time.monotonic() < deadline and self._kill_listed():
            pass

    def _kill_all(self) -> bool:
        if self._uid is not None and os.geteuid() == self._uid:
            _kill_as_user(self._uid)
        elif self._uid is None or not kill_user(self._uid):
            self._kill_listed()
        return True

    def _kill_listed(self) -> bool:
        """Kill everything, one by one; return whether there was anything.

        Stopped before they are killed: who is stopped does not fork, and keeps its place in the limit of processes
        from those who would.
        """
        stopped: set[int] = set()
        for _ in range(_STOPPING_ROUNDS):
            running = self.read().keys() - stopped
            if not running:
                break
            _signal_each(running, signal.SIGSTOP)
            stopped |= running
        _kill_each(stopped)
        return bool(stopped)


def _kill_as_user(uid: int) -> None:
    """Kill every process of the slot's user at once, from a supervisor; it needs no process that the limit could deny.

    For this one call the supervisor is the user: the agent could signal it now, if it had a process left.
    """
    os.setresuid(uid, uid, 0)
    try:
        if uid:
            os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        # There was nobody.
        pass
    finally:
        os.setresuid(0, uid, 0)


def kill_user(uid: int) -> bool:
    """Kill every process of a user at once; return whether that could be done."""

    def kill() -> None:
        become_user(uid)
        if os.getuid() == os.geteuid() == uid != 0:
            os.kill(-1, signal.SIGKILL)

    return _in_child(kill)


def _kill_all_inside() -> None:
    # Only a process that was born into another pid namespace than its parent's has no parent that it could name.
    # Anywhere else this would end everything on the machine.
    if os.getppid() == 0:
        os.kill(-1, signal.SIGKILL)


def _in_child(kill: Callable[[], None]) -> bool:
    """Let a child of this process call `kill`; return whether it came to an end."""
    try:
        child = os.fork()
    except OSError:
        return False
    if child == 0:
        try:
            kill()
        except ProcessLookupError:
            # There was nobody.
            pass
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


def _victims(processes: Processes, spared: Processes) -> list[int]:
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


def _members(processes: Processes, leader: tuple[int, int], sessions: set[int]) -> list[int]:
    """Return the processes of `sessions` and all below them; their sessions are added."""
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


def _kill_each(pids: Iterable[int]) -> None:
    _signal_each(pids, signal.SIGKILL)


def _signal_each(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        try:
            # A descriptor of the slot's /proc/PID serves as a pidfd: the number itself means another process here.
            descriptor = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            signal.pidfd_send_signal(descriptor, number)
        except OSError:
            pass
        finally:
            os.close(descriptor)

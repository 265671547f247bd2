"""The preloaded process that forks a supervisor for each lease.

It is forked from the daemon before that starts its event loop: it has one thread, no open descriptors but its own, and
everything imported that a supervisor will need. It outlives a daemon that was killed just long enough to clean up.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd import _linux, _supervisor
from hermes_sandboxd._killing import BareProcesses, kill_user
from hermes_sandboxd._warming import warm_up

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAST_WORDS_S = 1.0
_SWEEP_S = 3.0


def fork(clean_up: Callable[[], None], kept: Iterable[int]) -> tuple[socket.socket, int]:
    """Start the zygote; return the daemon's end of the socket to it, and its pid.

    Args:
        clean_up: Called in the zygote when the daemon was killed: removes what the daemon cannot remove any more.
        kept: Descriptors that stay open in the zygote.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        ours.close()
        _settle({theirs.fileno(), *kept})
        Zygote(theirs, clean_up).serve()
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(0)


def _settle(kept: set[int]) -> None:
    # Signals of a terminal and of service managers are for the daemon, whose end ends this process.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _linux.set_child_subreaper()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:
                # The one that listed the folder.
                pass
    os.chdir("/")
    warm_up()
    gc.collect()
    gc.freeze()


class Zygote:
    """Forks supervisors on request, reaps them, and reports their ends."""

    def __init__(self, sock: socket.socket, clean_up: Callable[[], None]) -> None:
        self._sock = sock
        self._clean_up = clean_up
        self._supervisors: set[int] = set()
        self._leaving = False
        # bubblewrap is given the descriptors 0 to 3, so that no pipe of a supervisor may have one of these numbers.
        while os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC) <= 3:
            pass
        self._wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        os.set_blocking(self._wake, False)
        self._wake_end = wake_end
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Run until the daemon says goodbye or is gone."""
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._wake:
                    self._reap()
                elif not self._obey():
                    self._end()
                    return

    def _obey(self) -> bool:
        try:
            data, descriptors = _linux.receive_descriptors(self._sock, 65536)
        except OSError:
            # A daemon that was killed with reports unread resets the connection.
            return False
        if not data:
            return False
        order: dict[str, Any] = json.loads(data)
        if order["do"] == "sweep":
            self._sweep(order["sweep"], order["uid"])
        elif order["do"] == "fork":
            self._fork(order["slot"], descriptors)
        elif order["do"] == "kill" and order["pid"] in self._supervisors:
            os.kill(order["pid"], signal.SIGKILL)
        elif order["do"] == "leave":
            self._leaving = True
            return False
        return True

    def _fork(self, slot: int, descriptors: list[int]) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_supervisor(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self._supervisors.add(pid)
        self._tell({"forked": pid, "slot": slot})

    def _become_supervisor(self, descriptors: list[int]) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._wake, self._wake_end):
                os.close(descriptor)
            self._sock.close()
            # The last descriptor may be the claim on the slot's user: it is held for as long as this process lives.
            _supervisor.run(socket.socket(fileno=descriptors[0]), descriptors[1:])
        except BaseException:
            # Not the module traceback: it would have to be imported from files that a slot does not see.
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(0)

    def _reap(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            pass
        self._report(self._wait())
        # What a supervisor leaves behind is adopted here: PID 1 of its slot, for one.
        self._kill_strays()

    def _report(self, ended: list[int]) -> None:
        for pid in ended:
            self._tell({"exited": pid})

    def _wait(self) -> list[int]:
        ended: list[int] = []
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid in self._supervisors:
                self._supervisors.discard(pid)
                ended.append(pid)

    def _kill_strays(self) -> bool:
        """Kill what was adopted; return whether there was anything."""
        return self._kill(lambda pid: pid not in self._supervisors)

    def _sweep(self, number: int, uid: int | None) -> None:
        """See that nothing lives of a supervisor that has ended, where no pid namespace has seen to it."""
        strays = BareProcesses(uid, others=self._supervisors)
        deadline = time.monotonic() + _SWEEP_S
        try:
            if uid is not None:
                kill_user(uid)
            while strays.read() and time.monotonic() < deadline:
                strays.end()
                self._report(self._wait())
            if not strays.read():
                self._tell({"swept": number})
        finally:
            strays.close()

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._sock.send(json.dumps(message).encode())
        except OSError:
            # The daemon is gone, which the next turn notices.
            pass

    def _kill(self, chosen: Callable[[int], bool]) -> bool:
        victims = list(filter(chosen, _children()))
        for pid in victims:
            # Nobody else reaps it, so the number cannot mean another process by now.
            os.kill(pid, signal.SIGKILL)
        return bool(victims)

    def _end(self) -> None:
        """Wait until every supervisor and slot is gone: they notice that the daemon is; whoever does not is killed."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while self._has_children():
            if time.monotonic() > deadline:
                self._kill(lambda pid: True)
            else:
                self._kill(lambda pid: pid not in self._supervisors)
            time.sleep(0.002)
        if not self._leaving:
            self._clean_up()

    def _has_children(self) -> bool:
        self._wait()
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True


def _children() -> list[int]:
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:
        # A kernel without CONFIG_PROC_CHILDREN.
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(name) == os.getpid()]


def _parent(name: str) -> int:
    try:
        with open(f"/proc/{name}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[1])
    except OSError:
        return -1


def _ignore(*_: object) -> None:
    """Do nothing: the signal only has to wake the loop."""

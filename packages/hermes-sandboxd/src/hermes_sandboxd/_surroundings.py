"""What the operations of one slot share: where they are, how programs are started, where late output goes."""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._bubblewrap import TMP, command_environment, search
from hermes_sandboxd._jobs import Jobs
from hermes_sandboxd._namespaces import read_children
from hermes_sandboxd._protocol import notification
from hermes_sandboxd._reactor import READ, Reactor

if TYPE_CHECKING:
    from resource import struct_rusage

    from hermes_sandboxd._killing import SlotProcesses
    from hermes_sandboxd._limits import Observed
    from hermes_sandboxd._link import Link
    from hermes_sandboxd._spawning import Spawner

_READ_BYTES = 65536
_MOST_DRAINS = 64


class LaunchError(Exception):
    """A program cannot be started; `exit_code` is what a shell would report, 126 or 127."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class Surroundings:
    """What the operations of one slot share."""

    def __init__(
        self,
        reactor: Reactor,
        link: Link,
        spec: dict[str, Any],
        spawner: Spawner,
        processes: SlotProcesses,
        observed: Observed,
    ) -> None:
        self.reactor = reactor
        self.link = link
        self.workspace: str = spec["workspace"]
        """Where relative paths begin, as seen from inside."""
        self.processes = processes
        self.jobs = Jobs(self)
        self.observed = observed
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._environment: dict[str, str] = {"HOME": spec["home"], **_temporary(spec["tmp"]), **spec["env"]}
        self._spawner = spawner
        self.children: set[int] = set()
        """The children of this process that somebody here waits for: orphans are the others."""
        self.end_commands: Callable[[], None] = lambda: None
        """Ends every command and job, for the sake of a limit."""
        self._drains: deque[int] = deque()

    def close(self) -> None:
        """Close what is open."""
        self.processes.close()
        os.close(self.null)

    def path(self, path: str) -> str:
        """Return a path of a request as an absolute one."""
        return os.path.join(self.workspace, path)

    def launch(
        self, argv: list[str], cwd: str | None, env: dict[str, str], streams: list[int], terminal: str | None = None
    ) -> int:
        """Start a program in a session of its own; return its (outer) pid.

        Args:
            argv: The program, looked for on PATH as a shell does, and its arguments.
            cwd: Where it runs, relative to the workspace.
            env: Variables on top of the slot's.
            streams: Descriptors that become its descriptors 0, 1, 2 and so on.
            terminal: Path of the terminal that becomes its controlling one and the first stream, before `streams`.

        Raises:
            LaunchError: It cannot be started.
        """
        folder = self.path(cwd) if cwd else self.workspace
        try:
            os.chdir(folder)
        except OSError as error:
            raise LaunchError(126, f"{folder}: {error.strerror}") from None
        except ValueError as error:
            raise LaunchError(126, f"{folder!r}: {error}") from None
        environment = command_environment(self._environment, {"PWD": folder}, env)
        failure = LaunchError(127, f"{argv[0]}: not found")
        for path in search(argv[0], environment.get("PATH", "")):
            try:
                pid = self._spawner.spawn(path, argv, environment, streams, terminal)
            except OSError as error:  # noqa: PERF203 - beside a system call it costs nothing
                self.observed.note_failed_spawn(error)
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    failure = LaunchError(126, f"{argv[0]}: {error.strerror}")
            except ValueError as error:
                raise LaunchError(126, f"{argv[0]!r}: {error}") from None
            else:
                self.children.add(pid)
                return pid
        raise failure

    def reap(self, pid: int) -> tuple[int, struct_rusage]:
        """Return the wait status and the usage of a child of this process that has ended."""
        _, status, usage = os.wait4(pid, 0)
        self.children.discard(pid)
        return status, usage

    def fork(self) -> int:
        """Fork a child that is the slot's user; return as `os.fork` does."""
        pid = self._spawner.fork()
        if pid:
            self.children.add(pid)
        return pid

    def look_at(self, pid: int) -> int | None:
        """Return the wait status of a child of `fork` if it has ended; kill one that the agent has stopped."""
        found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        if not found:
            return None
        if os.WIFSTOPPED(status):
            os.kill(pid, signal.SIGKILL)
            return None
        self.children.discard(pid)
        return status

    def adopt_orphans(self, listing: int) -> None:
        """Reap the slot's orphans from now on: they become children of this process.

        Args:
            listing: Descriptor of the file that lists the children of this process.
        """
        wake, wake_end = os.pipe()
        for descriptor in (wake, wake_end):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        self.reactor.add(wake, READ, lambda _: self._reap_orphans(wake, listing))

    def _reap_orphans(self, wake: int, listing: int) -> None:
        os.read(wake, 4096)
        for pid in read_children(listing):
            if pid not in self.children:
                os.waitpid(pid, os.WNOHANG)

    def breach(self, limit: str) -> None:
        """Take note of a breach, and let the daemon know of it, who may have to say why the slot died."""
        self.observed.note(limit)
        self.link.send(notification("breach", limit=limit))

    def give_up(self) -> None:
        """End the slot: it cannot be put in order any more."""
        self.link.closed = True

    def drain(self, descriptor: int) -> None:
        """Read `descriptor` to its end and forget what comes: background processes keep a working output."""
        self._drains.append(descriptor)
        if len(self._drains) > _MOST_DRAINS:
            self._end_drain(self._drains[0])
        self.reactor.add(descriptor, READ, lambda _: self._drained(descriptor))

    def _drained(self, descriptor: int) -> None:
        try:
            if os.read(descriptor, _READ_BYTES):
                return
        except BlockingIOError:
            return
        self._end_drain(descriptor)

    def _end_drain(self, descriptor: int) -> None:
        self._drains.remove(descriptor)
        self.reactor.remove(descriptor)
        os.close(descriptor)


def _temporary(folder: str) -> dict[str, str]:
    """Tell programs where their temporary files go, if it is not where they would put them anyway."""
    return {} if folder == TMP else {"TMPDIR": folder}

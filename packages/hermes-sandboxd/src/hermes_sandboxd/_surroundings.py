"""What the operations of one slot share: where they are, how programs are started, where late output goes."""

from __future__ import annotations

import errno
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Any

from hermes_sandboxd._bubblewrap import command_environment, search
from hermes_sandboxd._jobs import Jobs
from hermes_sandboxd._reactor import READ, Reactor

if TYPE_CHECKING:
    from hermes_sandboxd._killing import SlotProcesses
    from hermes_sandboxd._link import Link

_READ_BYTES = 65536
_MOST_DRAINS = 64
# Python ignores some signals, the zygote ignores others, and whoever started the daemon may have ignored more.
DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class LaunchError(Exception):
    """A program cannot be started; `exit_code` is what a shell would report, 126 or 127."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


class Surroundings:
    """What the operations of one slot share."""

    def __init__(
        self, reactor: Reactor, link: Link, spec: dict[str, Any], oom_score: int, processes: SlotProcesses
    ) -> None:
        self.reactor = reactor
        self.link = link
        self.workspace: str = spec["workspace"]
        """Where relative paths begin, as seen from inside."""
        self.processes = processes
        self.jobs = Jobs(self)
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._environment: dict[str, str] = {"HOME": spec["home"], **spec["env"]}
        self._oom_score = oom_score
        self._own_score = os.pread(oom_score, 16, 0)
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
                return self._spawn(path, argv, environment, streams, terminal)
            except OSError as error:  # noqa: PERF203 - beside a system call it costs nothing
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    failure = LaunchError(126, f"{argv[0]}: {error.strerror}")
            except ValueError as error:
                raise LaunchError(126, f"{argv[0]!r}: {error}") from None
        raise failure

    def _spawn(
        self, path: str, argv: list[str], environment: dict[str, str], streams: list[int], terminal: str | None
    ) -> int:
        actions: list[tuple[Any, ...]] = []
        if terminal is not None:
            # The first terminal that a session's leader opens becomes its controlling one.
            actions.append((os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0))
            actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in enumerate(streams)]
        # Raised for the moment of the spawn only: the child inherits it, and the supervisor, whose end would end
        # the slot, does not become the first choice of the kernel's out-of-memory killer.
        self._score(b"1000")
        try:
            return os.posix_spawn(
                path, argv, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=DEFAULT_SIGNALS
            )
        finally:
            self._score(self._own_score)

    def fork(self) -> int:
        """Fork a child that the kernel kills first when memory runs out; return as `os.fork` does."""
        self._score(b"1000")
        try:
            return os.fork()
        finally:
            self._score(self._own_score)

    def _score(self, value: bytes) -> None:
        try:
            os.write(self._oom_score, value)
        except OSError:
            pass

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

"""Starts the programs of a slot, as the slot's user."""

from __future__ import annotations

import os
import signal
from typing import Any, Protocol

# Python ignores some signals, the zygote ignores others, and whoever started the daemon may have ignored more.
DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

_OOM_SCORE = b"1000"
"""When memory runs out, the kernel looks here first."""


class Spawner(Protocol):
    """Starts programs."""

    def spawn(
        self, path: str, argv: list[str], environment: dict[str, str], streams: list[int], terminal: str | None
    ) -> int:
        """Start the program at `path` in a session of its own; return its (outer) pid.

        Args:
            path: The program's file.
            argv: Its name and arguments.
            environment: Its whole environment.
            streams: Descriptors that become its descriptors 0, 1, 2 and so on.
            terminal: Path of the terminal that becomes its controlling one and its first three descriptors.

        Raises:
            OSError: It cannot be started.
            ValueError: An argument has a null character.
        """

    def fork(self) -> int:
        """Fork a child that is the slot's user, and that the kernel kills first when memory runs out.

        Returns:
            As `os.fork`.
        """


class SameUserSpawner:
    """For a supervisor that is the slot's user itself: with `posix_spawn`, at the price of a bare spawn.

    Args:
        oom_score: This process's `oom_score_adj`, open for reading and writing.
    """

    def __init__(self, oom_score: int) -> None:
        self._oom_score = oom_score
        self._own_score = os.pread(oom_score, 16, 0)

    def spawn(
        self, path: str, argv: list[str], environment: dict[str, str], streams: list[int], terminal: str | None
    ) -> int:
        """Start a program; see `Spawner.spawn`."""
        actions: list[tuple[Any, ...]] = []
        if terminal is not None:
            # The first terminal that a session's leader opens becomes its controlling one.
            actions.append((os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0))
            actions += [(os.POSIX_SPAWN_DUP2, 0, target) for target in (1, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in enumerate(streams)]
        # Raised for the moment of the spawn only: the child inherits it, and the supervisor, whose end would end
        # the slot, does not become the first choice of the kernel's out-of-memory killer.
        self._score(_OOM_SCORE)
        try:
            return os.posix_spawn(
                path, argv, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=DEFAULT_SIGNALS
            )
        finally:
            self._score(self._own_score)

    def fork(self) -> int:
        """Fork a child; see `Spawner.fork`."""
        self._score(_OOM_SCORE)
        try:
            return os.fork()
        finally:
            self._score(self._own_score)

    def _score(self, value: bytes) -> None:
        try:
            os.write(self._oom_score, value)
        except OSError:
            pass


class OtherUserSpawner:
    """For a supervisor that keeps the daemon's user: with `fork`, since the child must become somebody else.

    Args:
        uid: The slot's user.
    """

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def spawn(
        self, path: str, argv: list[str], environment: dict[str, str], streams: list[int], terminal: str | None
    ) -> int:
        """Start a program; see `Spawner.spawn`."""
        if any("\0" in text for text in (path, *argv)):
            raise ValueError("embedded null byte")
        failure, report = os.pipe()
        try:
            pid = os.fork()
            if pid == 0:
                self._become(report, path, argv, environment, streams, terminal)
        finally:
            os.close(report)
        try:
            number = os.read(failure, 16)
        finally:
            os.close(failure)
        if number:
            os.waitpid(pid, 0)
            raise OSError(int(number), os.strerror(int(number)), path)
        return pid

    def fork(self) -> int:
        """Fork a child; see `Spawner.fork`."""
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _raise_own_score()
            become_user(self._uid)
        return pid

    def _become(
        self,
        report: int,
        path: str,
        argv: list[str],
        environment: dict[str, str],
        streams: list[int],
        terminal: str | None,
    ) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            _raise_own_score()
            if terminal is not None:
                opened = os.open(terminal, os.O_RDWR)
                for target in (0, 1, 2):
                    os.dup2(opened, target)
            for target, descriptor in enumerate(streams):
                os.dup2(descriptor, target)
            become_user(self._uid)
            os.execve(path, argv, environment)
        except OSError as error:
            os.write(report, str(error.errno).encode())
        finally:
            os._exit(127)


def become_user(uid: int) -> None:
    """Let a supervisor's child become the slot's user for good."""
    os.seteuid(0)
    os.setresuid(uid, uid, uid)


def _raise_own_score() -> None:
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass

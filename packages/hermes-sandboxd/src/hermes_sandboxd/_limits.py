"""What a slot may use, as its supervisor sets it, and how the supervisor learns that it was too much."""

from __future__ import annotations

import errno
import os
import resource
import signal
from typing import TYPE_CHECKING, Any

from hermes_sandboxd._cgroups import count_breaches, read_events

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHELL_SIGNAL = 128
"""A shell reports a command that a signal ended with an exit code above this."""

_TOLD = (b"limit exceeded", b"Killed")
"""What shells say of these ends."""

_NO_MORE = (b"Cannot fork", b"can't fork", b"fork: Resource temporarily", b"fork: retry: Resource temporarily")
"""What shells say when there may be no more processes."""

_OWN_PROCESSES = 2
"""The supervisor and PID 1 have the same user, in the same user namespace, as what the limit is for."""


def counts_processes(level: str, *, own_user: bool) -> bool:
    """Tell whether `RLIMIT_NPROC` counts the processes of one slot, and of nobody else.

    It counts those of a user; since Linux 5.14 those of a user within a user namespace.

    Args:
        level: The isolation level.
        own_user: Whether the slot has a user of its own.
    """
    if level == "namespaces" and not own_user:
        major, minor = os.uname().release.split(".")[:2]
        return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)
    return own_user


def set_resource_limits(limits: dict[str, Any], level: str, *, own_user: bool, grouped: bool) -> None:
    """Set what every process of the slot inherits from this one.

    Args:
        limits: The slot's limits, complete.
        level: Its isolation level.
        own_user: Whether the slot has a user of its own.
        grouped: Whether a control group limits memory, exactly and for all processes together.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, limits["open_files"])
    _lower(resource.RLIMIT_FSIZE, limits["file_bytes"])
    if limits["processes"] is not None and counts_processes(level, own_user=own_user):
        _lower(resource.RLIMIT_NPROC, limits["processes"] + (_OWN_PROCESSES if level == "namespaces" else 0))
    if not grouped and limits["memory_bytes"] is not None:
        # Against a process that grows faster than the watchdog looks. The watchdog's limit is the one that is named.
        _lower(resource.RLIMIT_DATA, 2 * limits["memory_bytes"])


def _lower(which: int, value: int | None) -> None:
    if value is None:
        return
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def limited_argv(argv: Sequence[str], cpu_s: float | None) -> list[str]:
    """Return a command that runs `argv` with a limit of processor time for each of its processes."""
    if cpu_s is None:
        return list(argv)
    seconds = max(1, round(cpu_s))
    # The soft limit ends it with SIGXCPU, which can be told from other ends; the hard one cannot be ignored.
    line = f'ulimit -St {seconds} && ulimit -Ht {seconds + 1} && exec "$@"'
    return ["/bin/sh", "-c", line, "sh", *argv]


class Observed:
    """The breaches of one slot: counted by the kernel, or noted by the watchdog.

    Args:
        events: The files of a control group that count breaches; None without one.
        limits: The slot's limits: where nothing counts breaches, they are compared with what a command used and said.
    """

    def __init__(self, events: tuple[int, int] | None, limits: dict[str, Any]) -> None:
        self._events = events
        self._memory_bytes = None if events else limits["memory_bytes"]
        self._tells_processes = not events and limits["processes"] is not None
        self._seen = (b"", b"") if events is None else read_events(*events)
        self._noted: str | None = None

    @property
    def grouped(self) -> bool:
        """Whether a control group counts."""
        return self._events is not None

    def note(self, limit: str) -> None:
        """Take note of a breach that was seen."""
        self._noted = self._noted or limit

    def note_failed_spawn(self, error: OSError) -> None:
        """Take note of what a spawn that failed tells."""
        if error.errno == errno.EAGAIN:
            self.note("processes")

    def take(self) -> str | None:
        """Return the limit that was breached since the last time, if any."""
        noted, self._noted = self._noted, None
        if self._events is None:
            return noted
        now = read_events(*self._events)
        if now == self._seen:
            return noted
        before, self._seen = count_breaches(self._seen), now
        after = count_breaches(now)
        if after.memory > before.memory:
            return noted or "memory"
        return noted or ("processes" if after.processes > before.processes else None)

    def named(
        self, status: int, usage: resource.struct_rusage, cpu_s: float | None = None, said: bytes = b""
    ) -> str | None:
        """Return the limit that a command breached, by what was observed since the last one and by how it ended.

        Args:
            status: Its wait status.
            usage: What it used.
            cpu_s: Its limit of processor time.
            said: The end of its standard error, where a shell says which signal ended what it ran.
        """
        limit = self.take()
        if limit is not None:
            return limit
        if status and (limit := self._named_by_end(status, usage, cpu_s, said)) is not None:
            return limit
        # Whoever fails for want of memory before the watchdog looks may be part of a command that goes on.
        if self._memory_bytes is not None and _most_bytes(usage) > max(self._memory_bytes, _own_most_bytes()):
            return "memory"
        if status and self._tells_processes and any(words in said for words in _NO_MORE):
            return "processes"
        return None

    def _named_by_end(self, status: int, usage: resource.struct_rusage, cpu_s: float | None, said: bytes) -> str | None:
        ended_by = _ending_signal(status, said)
        if ended_by == signal.SIGXFSZ:
            return "file_size"
        if cpu_s is not None and (ended_by == signal.SIGXCPU or (ended_by == signal.SIGKILL and _used(usage) >= cpu_s)):
            return "cpu"
        return None


def _most_bytes(usage: resource.struct_rusage) -> int:
    """The most memory that a command or one of the processes that it waited for has had."""
    return usage.ru_maxrss * 1024


def _own_most_bytes() -> int:
    """What a command is said to have had that has had less than the process which started it."""
    return _most_bytes(resource.getrusage(resource.RUSAGE_SELF))


def _used(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _ending_signal(status: int, said: bytes) -> int:
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    # An exit code alone is no proof: every program may exit with it.
    told = any(words in said for words in _TOLD)
    return max(0, os.WEXITSTATUS(status) - _SHELL_SIGNAL) if told else 0

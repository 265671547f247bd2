"""What the commands of one slot share: how they are started, and where their late output goes."""

from __future__ import annotations

import os
import signal
from collections import deque
from typing import TYPE_CHECKING

from hermes_sandboxd._reactor import READ, Reactor

if TYPE_CHECKING:
    from hermes_sandboxd._killing import SlotProcesses
    from hermes_sandboxd._link import Link

_READ_BYTES = 65536
_MOST_DRAINS = 64
# Python ignores some signals, the zygote ignores others, and whoever started the daemon may have ignored more.
_DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class Surroundings:
    """What the commands of one slot share."""

    def __init__(
        self, reactor: Reactor, link: Link, environment: dict[str, str], oom_score: int, processes: SlotProcesses
    ) -> None:
        self.reactor = reactor
        self.link = link
        self.environment = environment
        self.processes = processes
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._oom_score = oom_score
        self._own_score = os.pread(oom_score, 16, 0)
        self._drains: deque[int] = deque()

    def close(self) -> None:
        """Close what is open."""
        self.processes.close()
        os.close(self.null)

    def spawn(self, path: str, argv: list[str], environment: dict[str, str], descriptors: list[int]) -> int:
        """Start a program with `descriptors` as its standard streams; return its (outer) pid."""
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, target) for target, descriptor in enumerate(descriptors)]
        # Raised for the moment of the spawn only: the child inherits it, and the supervisor, whose end would end
        # the slot, does not become the first choice of the kernel's out-of-memory killer.
        self._score(b"1000")
        try:
            return os.posix_spawn(
                path, argv, environment, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
            )
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

"""A poll loop of a few callbacks: all that a supervisor needs, at a fraction of the memory of an event loop."""

from __future__ import annotations

import select
import time
from typing import Callable

READ = select.POLLIN
WRITE = select.POLLOUT

Callback = Callable[[int], None]


class Reactor:
    """Calls back when a descriptor is ready, when the one deadline has passed, and between turns when asked to."""

    __slots__ = ("_callbacks", "_poll", "deadline", "on_deadline", "on_turn")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callback] = {}
        self.deadline: float | None = None
        self.on_deadline: Callable[[], None] | None = None
        self.on_turn: Callable[[], None] | None = None

    def add(self, descriptor: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` whenever `descriptor` is ready for any of `events`, or has hung up."""
        self._callbacks[descriptor] = callback
        self._poll.register(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Stop watching `descriptor`; removing it twice is no error."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def watches(self, descriptor: int) -> bool:
        """Tell whether `descriptor` is being watched."""
        return descriptor in self._callbacks

    def run_once(self) -> None:
        """Wait for the next event and handle what is ready."""
        timeout: float | None = None
        if self.on_turn is not None:
            timeout = 0
        elif self.deadline is not None:
            # Rounded up: waking a moment too early would spin until the deadline.
            timeout = max(0, int((self.deadline - time.monotonic()) * 1000) + 1)
        for descriptor, events in self._poll.poll(timeout):
            callback = self._callbacks.get(descriptor)
            # An earlier callback of this turn may have removed it.
            if callback is not None:
                callback(events)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.deadline = None
            if self.on_deadline is not None:
                self.on_deadline()
        if self.on_turn is not None:
            self.on_turn()

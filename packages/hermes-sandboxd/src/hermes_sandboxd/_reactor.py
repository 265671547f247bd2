"""A poll loop of a few callbacks and timers: all that a supervisor needs, at a fraction of an event loop's memory."""

from __future__ import annotations

import select
import time
from typing import Callable

READ = select.POLLIN
WRITE = select.POLLOUT

Callback = Callable[[int], None]


class Reactor:
    """Calls back when a descriptor is ready, when a timer has run out, and between turns when asked to."""

    __slots__ = ("_callbacks", "_poll", "_timers", "on_turn")

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: dict[Callable[[], None], float] = {}
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

    def set_timer(self, when: float, callback: Callable[[], None]) -> None:
        """Call `callback()` once at the time `when` of the monotonic clock; replaces its earlier timer."""
        self._timers[callback] = when

    def has_timer(self, callback: Callable[[], None]) -> bool:
        """Tell whether `callback` has a timer that has not run out."""
        return callback in self._timers

    def clear_timer(self, callback: Callable[[], None]) -> None:
        """Forget the timer of `callback`; none is no error."""
        self._timers.pop(callback, None)

    def run_once(self) -> None:
        """Wait for the next event and handle what is ready."""
        timeout: float | None = None
        if self.on_turn is not None:
            timeout = 0
        elif self._timers:
            # Rounded up: waking a moment too early would spin until the timer has run out.
            timeout = max(0, int((min(self._timers.values()) - time.monotonic()) * 1000) + 1)
        for descriptor, events in self._poll.poll(timeout):
            callback = self._callbacks.get(descriptor)
            # An earlier callback of this turn may have removed it.
            if callback is not None:
                callback(events)
        if self._timers:
            self._run_timers()
        if self.on_turn is not None:
            self.on_turn()

    def _run_timers(self) -> None:
        now = time.monotonic()
        for callback in [callback for callback, when in self._timers.items() if when <= now]:
            # An earlier one of this turn may have cleared it.
            if self._timers.pop(callback, None) is not None:
                callback()

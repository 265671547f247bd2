"""The deadlines that the daemon holds against its slots, looked at a few times a second."""

from __future__ import annotations

import asyncio
import time
from typing import Callable

_INTERVAL_S = 0.1


class Deadlines:
    """Calls back some time after a deadline.

    One timer for all: a call of a millisecond should not pay for an exact timer that it never needs.
    """

    def __init__(self) -> None:
        self._due: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def set(self, callback: Callable[[], None], delay_s: float) -> None:
        """Call `callback` in `delay_s` seconds, or up to a tenth of a second later; replaces an earlier deadline."""
        self._due[callback] = time.monotonic() + delay_s
        if self._timer is None:
            self._timer = self._loop.call_later(_INTERVAL_S, self._look)

    def clear(self, callback: Callable[[], None]) -> None:
        """Do not call `callback`."""
        self._due.pop(callback, None)

    def _look(self) -> None:
        # The timer goes on for one more turn without deadlines, so that a busy daemon sets it once.
        self._timer = self._loop.call_later(_INTERVAL_S, self._look) if self._due else None
        now = time.monotonic()
        for callback in [callback for callback, due in self._due.items() if due <= now]:
            del self._due[callback]
            callback()

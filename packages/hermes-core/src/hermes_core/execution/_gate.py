"""A queue for places, first come first served."""

from __future__ import annotations

from collections import deque

from anyio import Event

__all__ = ["Gate"]


class Gate:
    """Lets a number of callers in at once; the others wait in order.

    Unlike a semaphore of the event loop it costs nothing while there is room, and a waiter that is cancelled by
    whatever means, even after it was let in, passes its place on.

    Args:
        places: How many callers may be inside.
    """

    __slots__ = ("_free", "_queue")

    def __init__(self, places: int) -> None:
        self._free = places
        self._queue: deque[Event] = deque()

    @property
    def waiting(self) -> int:
        """How many callers wait."""
        return len(self._queue)

    async def enter(self) -> None:
        """Wait for a place; whoever returns from here must `leave`."""
        if self._free > 0:
            self._free -= 1
            return
        admitted = Event()
        self._queue.append(admitted)
        try:
            await admitted.wait()
        except BaseException:
            if admitted.is_set():
                self.leave()
            else:
                self._queue.remove(admitted)
            raise

    def leave(self) -> None:
        """Give the place to whoever waits longest."""
        if self._queue:
            self._queue.popleft().set()
        else:
            self._free += 1

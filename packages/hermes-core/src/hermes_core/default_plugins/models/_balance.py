"""Requests that are shared among endpoints: where the next one goes, and who is left alone for a while."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Health", "awake", "choose"]

_LONGEST_REST_S = 60.0


class Health:
    """How busy an endpoint is, and how it fares.

    Args:
        limit: Most requests at once.
    """

    def __init__(self, limit: int) -> None:
        self.worked = False
        """Whether it ever completed anything."""
        self.waiting = 0
        """Requests that are on their way, or wait for their turn."""
        self.taken = 0
        """Requests in all."""
        self.rests_until = 0.0
        """Until when it had better be left alone, on the event loop's clock."""
        self._limit = limit
        self._failures = 0

    @property
    def full(self) -> bool:
        """Whether a further request would have to wait."""
        return self.waiting >= self._limit

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Count a request while it is on its way."""
        self.waiting += 1
        self.taken += 1
        try:
            yield
        finally:
            self.waiting -= 1

    def succeeded(self) -> None:
        """It completed something."""
        self.worked, self._failures, self.rests_until = True, 0, 0.0

    def failed(self, wait_s: float) -> None:
        """It did not: leave it alone for a while, longer each time, and at least for so many seconds."""
        self._failures += 1
        rest_s = max(wait_s, min(_LONGEST_REST_S, 2.0 ** min(self._failures, 10)))
        self.rests_until = anyio.current_time() + rest_s


Endpoint = TypeVar("Endpoint", bound=Health)


def awake(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Those that are not left alone."""
    now = anyio.current_time()
    return [each for each in endpoints if each.rests_until <= now]


def choose(endpoints: Sequence[Endpoint], before: Endpoint | None) -> Endpoint:
    """Where the next request goes.

    Args:
        endpoints: All there are, at least one.
        before: Where the conversation's last turn came from: it has the conversation in its prefix cache.
    """
    ready = awake(endpoints)
    if not ready:
        return min(endpoints, key=lambda each: each.rests_until)
    free = [each for each in ready if not each.full] or ready
    if before in free:
        return before
    return min(free, key=lambda each: (each.waiting, each.taken))

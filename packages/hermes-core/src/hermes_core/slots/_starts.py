"""What it means that sandboxes did not start: for whom, and until when. Pure and synchronous."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError, NoCapacityError, SandboxLostError

if TYPE_CHECKING:
    from hermes_core.exceptions import HermesError
    from hermes_core.sandbox import SandboxSpec

__all__ = ["ATTEMPTS", "StartTroubles", "Verdict"]

ATTEMPTS = 3
FIRST_PAUSE_S = 0.2
FIRST_CAPACITY_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do after a start that failed.

    Attributes:
        retry_at: Until then no sandbox of that kind is to be started.
        refusal: What to tell those who wait; None lets them wait on.
        everyone: Whether that is for everyone who waits, or for those who wait for that kind.
        is_news: Whether it is worth a line of the log.
    """

    retry_at: float
    refusal: HermesError | None
    everyone: bool
    is_news: bool


@dataclass(slots=True)
class _Trouble:
    """What went wrong with one kind of sandbox since one came up.

    Attributes:
        failures: Starts that failed, for lack of room excepted.
        pause_s: How long is waited before the next.
        retry_at: When that is over.
        reason: What was said last.
        refused: Whether those who waited were told.
        for_room: Whether it failed for lack of room.
    """

    failures: int = 0
    pause_s: float = 0.0
    retry_at: float = 0.0
    reason: str = ""
    refused: bool = False
    for_room: bool = False

    def put_off(self, now: float, most_s: float) -> None:
        """Wait before the next start; twice as long as last time, unless another start failed at the same time."""
        if now >= self.retry_at:
            first_s = FIRST_CAPACITY_PAUSE_S if self.for_room else FIRST_PAUSE_S
            self.pause_s = min(max(first_s, 2 * self.pause_s), LONGEST_PAUSE_S)
            self.retry_at = now + min(self.pause_s, most_s)


class StartTroubles:
    """Remembers starts that failed.

    Args:
        capacity_wait_s: Seconds since a sandbox was alive for which lack of room is waited out.
    """

    def __init__(self, capacity_wait_s: float) -> None:
        self._capacity_wait_s = capacity_wait_s
        self._troubles: dict[SandboxSpec, _Trouble] = {}
        self._told: dict[SandboxSpec, str] = {}
        self._last_alive: float | None = None

    def held(self, now: float) -> list[SandboxSpec]:
        """Kinds of which none is to be started now."""
        return [spec for spec, trouble in self._troubles.items() if now < trouble.retry_at]

    @property
    def no_room(self) -> list[SandboxSpec]:
        """Kinds for which there was no room when it was last tried."""
        return [spec for spec, trouble in self._troubles.items() if trouble.for_room]

    def reason(self, spec: SandboxSpec) -> str | None:
        """Why the last start of that kind failed, unless one came up since."""
        trouble = self._troubles.get(spec)
        return None if trouble is None else trouble.reason

    def asked(self, spec: SandboxSpec) -> None:
        """Somebody asks for such a sandbox; whoever did before was told, and this one is not to wait for being told."""
        trouble = self._troubles.get(spec)
        if trouble is not None and trouble.refused:
            del self._troubles[spec]

    def came_up(self, spec: SandboxSpec, now: float) -> None:
        """A sandbox of that kind is ready."""
        self._troubles.pop(spec, None)
        self._last_alive = now

    def went(self, now: float) -> None:
        """A sandbox that was ready is no more; there may be room where it was."""
        self._last_alive = now
        for trouble in self._troubles.values():
            if trouble.for_room:
                trouble.retry_at = now

    def failed(
        self, error: HermesError, spec: SandboxSpec, *, now: float, alive: bool, coming: bool, serving: bool
    ) -> Verdict:
        """A sandbox did not start.

        Args:
            error: Why.
            spec: What it was to be.
            now: The time.
            alive: Whether there is any sandbox.
            coming: Whether any other is being started.
            serving: Whether there is one of that kind.
        """
        trouble = self._troubles.setdefault(spec, _Trouble())
        is_news = error.message != self._told.get(spec)
        trouble.reason = self._told[spec] = error.message
        trouble.for_room = isinstance(error, NoCapacityError)
        # It may be one node's trouble, and another start be on a better one.
        hopeless = not coming or trouble.failures + 1 >= ATTEMPTS
        everyone = isinstance(error, BackendUnavailableError) and not alive and hopeless
        refusal: HermesError | None = None
        patience_s = self._patience(now, hopeful=alive or coming) if trouble.for_room else inf
        if trouble.for_room:
            if patience_s <= 0:
                refusal = NoCapacityError(error.message, hint=error.hint)
        else:
            trouble.failures += 1
            is_news = is_news or trouble.failures <= ATTEMPTS
            if everyone:
                refusal = BackendUnavailableError(error.message, hint=error.hint)
            elif trouble.failures >= ATTEMPTS and not serving:
                refusal = SandboxLostError(f"sandboxes do not start: {error.message}", hint=error.hint)
        trouble.put_off(now, inf if refusal else patience_s)
        if refusal is not None:
            for told in self._troubles.values() if everyone else (trouble,):
                told.refused = True
        return Verdict(trouble.retry_at, refusal, everyone, is_news)

    def _patience(self, now: float, *, hopeful: bool) -> float:
        """For how long lack of room is waited out."""
        if hopeful:
            return inf
        return 0.0 if self._last_alive is None else self._last_alive + self._capacity_wait_s - now

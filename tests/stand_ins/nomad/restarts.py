"""Whether a task that has ended, or could not start, is started again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .documents import Doc
    from .drivers import Exit

__all__ = ["Decision", "RestartTracker"]


@dataclass(frozen=True, slots=True)
class Decision:
    """`again` after `delay` nanoseconds; otherwise `fails` tells a failure from an end."""

    again: bool
    reason: str
    delay: int = 0
    fails: bool = False


class RestartTracker:
    """Counts attempts within the policy's interval."""

    def __init__(self, policy: Doc) -> None:
        self._policy = policy
        self._count = 0
        self._began = time.monotonic()

    def decide(self, end: Exit | None, *, recoverable: bool = True) -> Decision:
        """Decide after an end, or after a failed start (`end` is `None`)."""
        policy = self._policy
        if policy["Attempts"] == 0:
            return Decision(False, "Policy allows no restarts", fails=end is None or end.code != 0)
        if time.monotonic() - self._began > policy["Interval"] / 1e9:
            self._began, self._count = time.monotonic(), 0
        self._count += 1
        if end is None and not recoverable:
            return Decision(False, "Error was unrecoverable", fails=True)
        if end is not None and end.code == 0:
            return Decision(False, "Restart unnecessary as task terminated successfully")
        if self._count > policy["Attempts"]:
            if policy["Mode"] == "fail":
                reason = f"Exceeded allowed attempts {policy['Attempts']} in interval {policy['Interval'] // 10**9}s"
                return Decision(False, f'{reason} and mode is "fail"', fails=True)
            rest = self._began + policy["Interval"] / 1e9 - time.monotonic()
            return Decision(True, "Exceeded allowed attempts, applying a delay", int(max(0.0, rest) * 1e9))
        delay = policy["Delay"] + int(policy["Delay"] * random.random() / 4)
        return Decision(True, "Restart within policy", delay)

"""What works on this machine: the finding that checks return, and that `hermes doctor` shows.

A backend, model or environment class may have a static method `diagnose() -> Iterable[Finding]`; `hermes doctor` calls
it for everything that is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "State"]

State = Literal["ok", "missing", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        state: `ok`, `missing` (not there, and only needed by some) or `broken` (there, but it does not work).
        detail: One line on what was found; never a secret.
        hint: What to do about it, or "".
        required: Whether the main job needs it: sandboxes on this machine.
    """

    name: str
    state: State
    detail: str
    hint: str = ""
    required: bool = False

"""How long ago something was, in words."""

from __future__ import annotations

import math

__all__ = ["age"]


def age(seconds: float | None) -> str:
    """Return it in the largest unit that fits; empty if it is not known."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{math.floor(seconds / length)} {unit}"
    return f"{math.floor(seconds)} s"

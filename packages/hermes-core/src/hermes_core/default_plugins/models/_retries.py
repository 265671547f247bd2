"""What is tried again, and when: the same for every endpoint."""

from __future__ import annotations

import random
import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["delay_s", "is_passing", "speaks_of_context"]

LONGEST_WAIT_S = 60.0
_FIRST_WAIT_S, _LONGEST_OWN_WAIT_S = 0.5, 8.0
_CONTEXT = re.compile(
    r"exceed_context_size|context[ _-]?(?:length|window|size)|maximum (?:context|model|input|prompt) ?length|"
    r"max_model_len|(?:prompt|input) is too long|too many (?:input |prompt )?tokens|"
    r"reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)


def is_passing(status: int, body: str = "") -> bool:
    """Whether an answer with this status may be another one soon."""
    return (status in (408, 409, 425, 429) or status >= 500) and not speaks_of_context(body)


def speaks_of_context(body: str) -> bool:
    """Whether a refusal says, in the words of one engine or another, that the prompt does not fit."""
    return _CONTEXT.search(body) is not None


def delay_s(attempt: int, headers: Mapping[str, str] | None = None) -> float:
    """Seconds to wait before a request is tried again; jitter keeps clients that failed together from coming together.

    Args:
        attempt: How often it was tried again already.
        headers: Those of the answer, whose `Retry-After` counts, up to a minute; None if there was no answer.
    """
    asked = _retry_after_s(headers) if headers is not None else None
    if asked is not None:
        return asked + random.uniform(0, 0.1)
    return min(_LONGEST_OWN_WAIT_S, _FIRST_WAIT_S * 2.0**attempt) * random.uniform(0.5, 1.0)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        given = headers.get(name)
        if given is None:
            continue
        try:
            seconds = float(given) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(given).timestamp() - time.time()
            except ValueError:
                continue
        if seconds == seconds:  # NaN is a number to `float`
            return min(LONGEST_WAIT_S, max(0.0, seconds))
    return None

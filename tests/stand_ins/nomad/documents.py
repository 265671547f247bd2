"""Words that every module shares: JSON documents, times and identifiers as the API writes them."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any, TypeAlias

__all__ = ["Doc", "RequestError", "duration", "new_id", "now", "rfc3339"]

Doc: TypeAlias = dict[str, Any]


class RequestError(Exception):
    """An answer that is not 200: `status`, and the text of the body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def now() -> int:
    """Nanoseconds since 1970."""
    return time.time_ns()


def rfc3339(moment: int) -> str:
    """Write nanoseconds since 1970 as text in UTC."""
    whole, part = divmod(moment, 1_000_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:09d}Z"


def new_id() -> str:
    """Make an identifier of an evaluation, an allocation or a node."""
    return str(uuid.uuid4())


def duration(nanoseconds: int) -> str:
    """Write a length of time as Go does: `500ms`, `5s`, `1m30s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 1_000_000_000:
        return f"{nanoseconds / 1_000_000:.9g}ms"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds = f"{rest / 1_000_000_000:.9g}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds

"""Requests and their answers as files, to look into and to send again."""

from __future__ import annotations

import itertools
import json
import os
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

__all__ = ["Dump", "Dumps"]

_LONGEST = 200_000  # characters


@dataclass(slots=True)
class Dump:
    """What came of one request; who sends it fills it in.

    Attributes:
        answer: The body of the answer; None without one.
        status: Its HTTP status; None without one.
    """

    answer: str | None = None
    status: int | None = None


@dataclass
class Dumps:
    """A folder with one file for each request; the key is in none of them.

    A file has `method`, `url`, `body`, `answer`, `status`, `error`, `started_at` and `duration_s`. A body or an answer
    of more than 200,000 characters is cut: `body` is then null, and what is kept of it stands in `body_cut`.

    Raises:
        ConfigError: The folder cannot be made.
    """

    folder: Path
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1), init=False)
    _series: str = field(init=False)

    def __post_init__(self) -> None:
        self._series = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write to {self.folder}: {error.strerror}") from None

    @asynccontextmanager
    async def of(self, url: str, body: Mapping[str, object], without_key: Callable[[str], str]) -> AsyncIterator[Dump]:
        """Write a request down before it is sent, so that one that hangs is there too, and again with its answer.

        Args:
            url: Where it goes, without credentials.
            body: What is sent, by POST.
            without_key: Takes the key out of a text.
        """
        path = self.folder / f"{self._series}-{next(self._numbers):06d}.json"
        sent = without_key(json.dumps(body, ensure_ascii=False))
        record: dict[str, object] = {
            "method": "POST",
            "url": url,
            "body": dict(body) if len(sent) <= _LONGEST else None,
            **({} if len(sent) <= _LONGEST else {"body_cut": sent[:_LONGEST]}),
            "answer": None,
            "status": None,
            "error": None,
            "started_at": time.time(),
            "duration_s": None,
        }
        started = time.monotonic()
        await self._write(path, record, without_key)
        dump = Dump()
        try:
            yield dump
        except Exception as error:
            record["error"] = without_key(f"{type(error).__name__}: {error}")[:_LONGEST]
            raise
        finally:
            record |= {"status": dump.status, "duration_s": round(time.monotonic() - started, 3)}
            if dump.answer is not None:
                record["answer"] = without_key(dump.answer)[:_LONGEST]
            with anyio.CancelScope(shield=True):
                await self._write(path, record, without_key)

    async def _write(self, path: Path, record: Mapping[str, object], without_key: Callable[[str], str]) -> None:
        text = without_key(json.dumps(record, ensure_ascii=False, indent=1))
        await anyio.to_thread.run_sync(_write_private, path, text)


def _write_private(path: Path, text: str) -> None:
    # Prompts may hold what is nobody else's business.
    with open(path, "w", encoding="utf-8", errors="backslashreplace", opener=_private) as file:
        file.write(text)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)

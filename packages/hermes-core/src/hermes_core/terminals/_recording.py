"""Where a recording is kept, outside the sandbox."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Recording"]

MEMORY_BYTES = 8 << 20
FILE_BYTES = 64 << 20


class Recording:
    """The growing text of one asciicast, in a file or in memory, up to a bound.

    A file is opened for each piece only, so that nothing has to be closed.

    Args:
        path: The file, which must not exist yet; None keeps the text in memory.
        most_bytes: What is kept; beyond it the recording ends with an event that says so. 64 MiB in a file and 8 MiB
            in memory by default.

    Raises:
        UsageError: The file exists, or cannot be written.
    """

    def __init__(self, path: Path | None = None, *, most_bytes: int | None = None) -> None:
        self.path = path
        self._most = most_bytes if most_bytes is not None else FILE_BYTES if path is not None else MEMORY_BYTES
        self._kept: list[str] = []
        self._size = 0
        self._cut = False
        if path is not None:
            try:
                path.touch(exist_ok=False)
            except OSError as error:
                raise UsageError(f"cannot record to {path}: {error.strerror}") from None

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    @property
    def cut(self) -> bool:
        """Whether the bound was reached: what came after is not in it."""
        return self._cut

    def append(self, line: str) -> None:
        """Take the next line: the header, or an event."""
        if self._cut:
            return
        if self._size + len(line) > self._most:
            self._cut = True
            line = (
                json.dumps([json.loads(line)[0], "o", f"\r\n[hermes: recording cut after {self._size} bytes]\r\n"])
                + "\n"
            )
        self._size += len(line)
        if self.path is None:
            self._kept.append(line)
        else:
            with self.path.open("a", encoding="ascii") as file:
                file.write(line)

    def read(self, offset: int, most_bytes: int) -> str:
        """The text from an offset on, or the part of it that is not longer than asked for."""
        if self.path is not None:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(most_bytes).decode("ascii")
        if len(self._kept) > 1:
            self._kept = ["".join(self._kept)]
        return self._kept[0][offset : offset + most_bytes] if self._kept else ""

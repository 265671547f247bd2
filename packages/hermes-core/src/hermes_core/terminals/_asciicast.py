"""Recordings of terminals: asciicast version 2 (https://docs.asciinema.org/manual/asciicast/v2/)."""

from __future__ import annotations

import codecs
import json
import time
from typing import TYPE_CHECKING

from hermes_core.terminals._screen import TerminalScreen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["AsciicastDecoder", "AsciicastWriter"]

LONGEST_LINE = 16 << 20
"""Characters of one event that are looked at; a longer line is malformed."""

LARGEST_SIZE = 1000
"""Columns or rows of the largest screen that a stream may ask for."""


class AsciicastWriter:
    """Writes one recording, event by event.

    The text is ASCII: a place in it is the same in characters and in bytes.

    Args:
        write: Takes the next text, as the method of a file does.
        columns: The terminal's width.
        rows: Its height.
        timestamp: When it began, in seconds since 1970; now by default.
        env: Variables to tell of: `TERM`, `SHELL`.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        columns: int,
        rows: int,
        *,
        timestamp: float | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._write = write
        self._latest = 0.0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        begun = int(time.time() if timestamp is None else timestamp)
        header = {"version": 2, "width": columns, "height": rows, "timestamp": begun, "env": dict(env or {})}
        self._write(json.dumps(header) + "\n")

    def output(self, at_s: float, data: bytes | str) -> str:
        """Record what the terminal showed; return it as text.

        A character that is cut in two belongs to the event of its last byte.

        Args:
            at_s: Seconds since the beginning; time never runs backwards in a recording.
            data: UTF-8, or text.
        """
        text = self._decoder.decode(data) if isinstance(data, bytes) else data
        if text:
            self._event(at_s, "o", text)
        return text

    def input(self, at_s: float, data: bytes | str) -> None:
        """Record keys that were pressed."""
        self._event(at_s, "i", data.decode("utf-8", "replace") if isinstance(data, bytes) else data)

    def resize(self, at_s: float, columns: int, rows: int) -> None:
        """Record a change of the size."""
        self._event(at_s, "r", f"{columns}x{rows}")

    def _event(self, at_s: float, code: str, data: str) -> None:
        self._latest = max(self._latest, at_s)
        self._write(json.dumps([round(self._latest, 6), code, data]) + "\n")


class AsciicastDecoder:
    """Renders a recording while it comes in.

    The header may be missing. A resize may be `"WxH"`, an object (`columns`, `cols` or `width`; `rows`, `lines` or
    `height`) or a list of two numbers. Lines that are nothing of this are counted and left out.

    Args:
        columns: Width until the stream says otherwise.
        rows: Height until the stream says otherwise.

    Attributes:
        malformed: How many lines were left out.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._size = columns, rows
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.malformed = 0
        self._screen = TerminalScreen(*self._size)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line: list[str] = []
        self._length = 0

    @property
    def screen(self) -> TerminalScreen:
        """The screen as it is now."""
        return self._screen

    def render(self) -> str:
        """The screen's lines as text; see `TerminalScreen.render`."""
        return self._screen.render()

    def feed(self, data: str | bytes) -> None:
        """Take the next piece of the recording; it may end anywhere."""
        *whole, rest = (self._decoder.decode(data) if isinstance(data, bytes) else data).split("\n")
        for part in whole:
            self._keep(part)
            self._end_line()
        self._keep(rest)

    def _keep(self, part: str) -> None:
        self._length += len(part)
        if self._length <= LONGEST_LINE:
            self._line.append(part)
        else:
            self._line.clear()

    def _end_line(self) -> None:
        line, length = "".join(self._line).strip(), self._length
        self._line.clear()
        self._length = 0
        if length > LONGEST_LINE or (line and not self._take(line)):
            self.malformed += 1

    def _take(self, line: str) -> bool:
        try:
            match json.loads(line):
                case {"version": _} as header:
                    return self._begin(header)
                case [int() | float(), "o", str(text)]:
                    self._screen.feed(text)
                case [int() | float(), "r", size]:
                    return self._resize(_size(size))
                case [int() | float(), str(code), *_] if code not in ("o", "r"):
                    pass  # input, markers, and whatever later versions add
                case _:
                    return False
        except (ValueError, RecursionError):
            return False
        return True

    def _begin(self, header: Mapping[str, object]) -> bool:
        term = header.get("term")  # version 3 has the size in there
        size = _size(term) or _size(header)
        self._screen = TerminalScreen(*(size or self._size))
        return size is not None

    def _resize(self, size: tuple[int, int] | None) -> bool:
        if size is not None:
            self._screen.resize(*size)
        return size is not None


def _size(value: object) -> tuple[int, int] | None:
    """Columns and rows in any of their spellings; None if it is none, or larger than a screen can be."""
    found: list[object]
    if isinstance(value, str):
        found = [int(part) if part.isascii() and part.isdigit() else None for part in value.split("x")]
    elif isinstance(value, dict):
        found = [
            next((value[name] for name in names if name in value), None)
            for names in (("columns", "cols", "width"), ("rows", "lines", "height"))
        ]
    elif isinstance(value, list):
        found = value
    else:
        return None
    match found:
        case [int(columns), int(rows)] if 1 <= columns <= LARGEST_SIZE and 1 <= rows <= LARGEST_SIZE:
            return columns, rows
    return None

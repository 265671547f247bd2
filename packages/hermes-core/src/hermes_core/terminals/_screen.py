"""What a person would see on a terminal."""

from __future__ import annotations

import codecs

from hermes_core.terminals._display import APPLICATION_CURSOR, Display
from hermes_core.terminals._sequences import SequenceParser

__all__ = ["HISTORY_LINES", "TerminalScreen"]

HISTORY_LINES = 2000


class TerminalScreen:
    """Renders the output of a terminal as text.

    Whatever is fed, it does not fail, and its memory is bounded by its size and its history.

    Args:
        columns: Its width.
        rows: Its height.
        history: Most lines to keep that scrolled out at the top.
    """

    def __init__(self, columns: int = 80, rows: int = 24, *, history: int = HISTORY_LINES) -> None:
        self._display = Display(columns, rows, history)
        self._parser = SequenceParser(self._display)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def columns(self) -> int:
        """Its width."""
        return self._display.columns

    @property
    def rows(self) -> int:
        """Its height."""
        return self._display.lines

    @property
    def cursor(self) -> tuple[int, int]:
        """Row and column of the cursor, from 0."""
        return self._display.cursor.y, min(self._display.cursor.x, self.columns - 1)

    @property
    def cursor_hidden(self) -> bool:
        """Whether the program hides the cursor."""
        return self._display.cursor.hidden

    @property
    def application_cursor(self) -> bool:
        """Whether the program asked for application cursor keys."""
        return APPLICATION_CURSOR in self._display.mode

    @property
    def alternate(self) -> bool:
        """Whether the alternate screen is shown, as full-screen programs do."""
        return self._display.alternate

    def feed(self, data: bytes | str) -> None:
        """Take the next output; bytes are UTF-8, and may end within a character or a sequence."""
        self._parser.feed(self._decoder.decode(data) if isinstance(data, bytes) else data)

    def resize(self, columns: int, rows: int) -> None:
        """Change its size. Text is not wrapped anew: columns that no longer fit are lost."""
        self._display.resize(rows, columns)

    def render(self) -> str:
        """The screen's lines, without blanks at their ends and without blank lines at the end."""
        return "\n".join(self._display.line(y) for y in range(self.rows)).rstrip("\n")

    def render_history(self) -> str:
        """As `render`, after the lines that scrolled out and are kept."""
        lines = [*self._display.scrolled, *(self._display.line(y) for y in range(self.rows))]
        return "\n".join(lines).rstrip("\n")

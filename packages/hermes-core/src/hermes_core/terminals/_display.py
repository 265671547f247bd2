"""The cells of a terminal: a screen of pyte, made safe against what hostile programs write."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any
from unicodedata import combining, normalize

from pyte import charsets, modes
from pyte.screens import Char, Cursor, Screen, StaticDefaultDict
from wcwidth import wcwidth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Display"]

MOST_COMBINING = 8
"""Combining characters that one cell keeps; more would be memory without bound."""

APPLICATION_CURSOR = 1 << 5
_KEPT_MODES = {modes.IRM, modes.LNM, modes.DECOM, modes.DECAWM, modes.DECTCEM, APPLICATION_CURSOR}
_ALTERNATE = {47 << 5, 1047 << 5, 1049 << 5}
_CURSOR_SAVED = 1049 << 5
_CURSOR_ONLY = 1048 << 5

_BLANK = Char(" ")
_Lines = dict[int, StaticDefaultDict[int, Char]]


class Display(Screen):
    """A screen without colours: it is there to be read as text.

    Further than pyte it has the alternate screen (modes 47, 1047, 1049) and the lines that scrolled out at the top.
    Column mode, reverse video, alignment display and window titles are ignored. It answers no queries.

    Args:
        columns: Its width.
        rows: Its height.
        history: Most lines to keep that scrolled out.
    """

    def __init__(self, columns: int, rows: int, history: int) -> None:
        self.scrolled: deque[str] = deque(maxlen=history)
        self._other: tuple[_Lines, Cursor] | None = None
        self._saved: tuple[Cursor, str, str, int] | None = None
        super().__init__(columns, rows)

    @property
    def alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return self._other is not None

    def line(self, y: int) -> str:
        """One line as text, without blanks at its end."""
        cells = self.buffer.get(y)
        return "" if cells is None else _line_text(cells, self.columns)

    # What SequenceParser finds

    def text(self, text: str) -> None:
        """Print characters."""
        table = self.g1_charset if self.charset else self.g0_charset
        if table != charsets.LAT1_MAP:
            text = text.translate(table)
        for character in text:
            width = 1 if character < "\x7f" else wcwidth(character)
            if width > 0:
                self._put(character, width)
            elif width == 0 and combining(character):
                self._combine(character)

    def control(self, character: str) -> None:
        """Act on a control character."""
        action = _CONTROLS.get(character)
        if action is not None:
            action(self)

    def escape(self, intermediate: str, final: str) -> None:
        """Act on an escape sequence."""
        if intermediate in ("(", ")"):
            self.define_charset(final, intermediate)
        elif not intermediate and final in _ESCAPES:
            _ESCAPES[final](self)

    def csi(self, prefix: str, parameters: list[int], intermediate: str, final: str) -> None:
        """Act on a control sequence."""
        if final in "hl" and prefix in ("", "?") and not intermediate:
            shift = 5 if prefix else 0
            self._switch([parameter << shift for parameter in parameters], on=final == "h")
        elif final in "JK" and prefix in ("", "?"):
            (self.erase_in_display if final == "J" else self.erase_in_line)(parameters[0])
        elif not prefix and not intermediate and final in _COUNTED:
            _COUNTED[final](self, parameters[0])
        elif not prefix and not intermediate and final in "Hf":
            self.cursor_position(parameters[0], parameters[1] if len(parameters) > 1 else 0)
        elif not prefix and not intermediate and final == "r":
            self._margins(*(*parameters, 0)[:2])
        elif intermediate == "!" and final == "p":
            self._soft_reset()

    # Where pyte is overruled

    def reset(self) -> None:
        """Begin anew, history and alternate screen included."""
        self.scrolled.clear()
        self._other = self._saved = None
        super().reset()

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Change the size: lines leave at the top, blank ones at the bottom first; columns leave at the right."""
        lines, columns = lines or self.lines, columns or self.columns
        shown = (self.buffer, self.cursor)
        for buffer, cursor in (shown, self._other) if self._other else (shown,):
            last = max((y for y in buffer if _line_text(buffer[y], self.columns)), default=0)
            excess = max(0, max(cursor.y, last) + 1 - lines)
            if buffer is (self._other or shown)[0]:  # the alternate screen has no history
                self.scrolled.extend(_line_text(buffer[y], self.columns) for y in range(excess))
            moved = {
                y - excess: _cells((x, cell) for x, cell in cells.items() if x < columns)
                for y, cells in buffer.items()
                if excess <= y < lines + excess
            }
            buffer.clear()
            buffer.update(moved)
            cursor.y = max(0, cursor.y - excess)
            cursor.x = min(cursor.x, columns - 1)
        self.lines, self.columns = lines, columns
        self.margins = None
        self.tabstops = set(range(8, columns, 8))

    def index(self) -> None:
        """Go down one line; what leaves at the top of the main screen becomes history."""
        top, bottom = self.margins or (0, self.lines - 1)
        if self.cursor.y == bottom and top == 0 and self._other is None:
            self.scrolled.append(self.line(0))
        super().index()
        self.dirty.clear()

    def save_cursor(self) -> None:
        """Save the cursor in the one place that there is."""
        self._saved = (_copy(self.cursor), self.g0_charset, self.g1_charset, self.charset)

    def restore_cursor(self) -> None:
        """Go back to the saved cursor; without one, home."""
        if self._saved is None:
            self.mode.discard(modes.DECOM)
            self.cursor_position()
            return
        cursor, self.g0_charset, self.g1_charset, self.charset = self._saved
        self.cursor = _copy(cursor)
        self.ensure_hbounds()
        self.ensure_vbounds()

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        """Erase from the cursor on, up to the cursor, or everything."""
        cells = self.buffer.get(self.cursor.y)
        if cells is None:
            return
        if how == 2:
            del self.buffer[self.cursor.y]
        elif how in (0, 1):
            for x in [x for x in cells if (x >= self.cursor.x if how == 0 else x <= self.cursor.x)]:
                del cells[x]

    def erase_in_display(self, how: int = 0, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as pyte has it
        """Erase below the cursor, above it, everything, or the history."""
        if how == 3:
            self.scrolled.clear()
            return
        gone = {0: range(self.cursor.y + 1, self.lines), 1: range(self.cursor.y), 2: range(self.lines)}.get(how)
        for y in gone or ():
            self.buffer.pop(y, None)
        if how in (0, 1):
            self.erase_in_line(how)

    def erase_characters(self, count: int | None = None) -> None:
        """Erase so many characters from the cursor on."""
        cells = self.buffer.get(self.cursor.y)
        if cells is not None:
            for x in range(self.cursor.x, min(self.cursor.x + (count or 1), self.columns)):
                cells.pop(x, None)

    def insert_characters(self, count: int | None = None) -> None:
        """Move what is at and after the cursor to the right."""
        self._moved(self.cursor.x, self.cursor.x, count or 1)

    def delete_characters(self, count: int | None = None) -> None:
        """Move what is after so many characters to the left, over them."""
        self._moved(self.cursor.x, self.cursor.x + (count or 1), -(count or 1))

    def delete_lines(self, count: int | None = None) -> None:
        """Move what is below so many lines up, over them."""
        top, bottom = self.margins or (0, self.lines - 1)
        if top <= self.cursor.y <= bottom:
            for y in range(self.cursor.y, bottom + 1):
                below = self.buffer.pop(y + (count or 1), None) if y + (count or 1) <= bottom else None
                if below is None:
                    self.buffer.pop(y, None)
                else:
                    self.buffer[y] = below
            self.cursor.x = 0

    def cursor_to_line(self, line: int | None = None) -> None:
        """Go to a line, counted from the margin in origin mode."""
        top = self.margins.top if self.margins is not None and modes.DECOM in self.mode else 0
        self.cursor.y = top + (line or 1) - 1
        self.ensure_vbounds()

    # Parts

    def _put(self, character: str, width: int) -> None:
        if self.cursor.x + width > self.columns:
            if modes.DECAWM in self.mode:
                self.cursor.x = 0
                self.index()
            else:
                self.cursor.x = self.columns - width
        if modes.IRM in self.mode:
            self.insert_characters(width)
        cells, x = self.buffer[self.cursor.y], self.cursor.x
        cells[x] = Char(character)
        if width == 2:
            cells[x + 1] = Char("")
        self.cursor.x = x + width

    def _moved(self, kept: int, first: int, by: int) -> None:
        """Keep the cells of this line that are before `kept`, move those from `first` on, drop the others."""
        cells = self.buffer.get(self.cursor.y)
        if cells:
            old = list(cells.items())
            cells.clear()
            for x, cell in old:
                target = x if x < kept else x + by if x >= first else self.columns
                if target < self.columns:
                    cells[target] = cell

    def _combine(self, character: str) -> None:
        cells = self.buffer[self.cursor.y]
        x = self.cursor.x - 1
        if x > 0 and not cells[x].data:
            x -= 1  # the left half of a wide character
        if x >= 0 and len(cells[x].data) <= MOST_COMBINING:
            cells[x] = Char(normalize("NFC", cells[x].data + character))

    def _switch(self, wanted: list[int], *, on: bool) -> None:
        for mode in wanted:
            if mode in _ALTERNATE:
                self._show_alternate(on, with_cursor=mode == _CURSOR_SAVED)
            elif mode == _CURSOR_ONLY:
                (self.save_cursor if on else self.restore_cursor)()
            elif mode in _KEPT_MODES:
                (self.mode.add if on else self.mode.discard)(mode)
                if mode == modes.DECOM:
                    self.cursor_position()
                elif mode == modes.DECTCEM:
                    self.cursor.hidden = not on

    def _show_alternate(self, alternate: bool, *, with_cursor: bool) -> None:
        if alternate == self.alternate:
            return
        if self._other is None:
            if with_cursor:
                self.save_cursor()
            self._other = (dict(self.buffer), _copy(self.cursor))
            self.buffer.clear()
        else:
            lines, cursor = self._other
            self._other = None
            self.buffer.clear()
            self.buffer.update(lines)
            self.cursor = cursor
            if with_cursor:
                self.restore_cursor()
        self.margins = None

    def _margins(self, top: int, bottom: int) -> None:
        self.margins = None
        self.set_margins(top or 1, bottom or self.lines)
        if self.margins == (0, self.lines - 1):
            self.margins = None
        self.cursor_position()

    def _soft_reset(self) -> None:
        self.mode = {modes.DECAWM, modes.DECTCEM}
        self.cursor.hidden = False
        self.margins = None
        self.charset = 0
        self.g0_charset, self.g1_charset = charsets.LAT1_MAP, charsets.VT100_MAP
        self._saved = None

    def _scroll_up(self, count: int) -> None:
        self._scrolled(count, up=True)

    def _scroll_down(self, count: int) -> None:
        self._scrolled(count, up=False)

    def _scrolled(self, count: int, *, up: bool) -> None:
        cursor = _copy(self.cursor)
        self.cursor.y = self.margins.top if self.margins else 0
        (self.delete_lines if up else self.insert_lines)(count)
        self.cursor = cursor

    def _next_line(self) -> None:
        self.index()
        self.cursor.x = 0


def _line_text(cells: StaticDefaultDict[int, Char], columns: int) -> str:
    last = max((x for x in cells if x < columns), default=-1)
    text, skip = [], False
    for x in range(last + 1):
        data = cells[x].data
        if skip and not data:  # the right half of a wide character
            skip = False
            continue
        text.append(data or " ")
        skip = bool(data) and wcwidth(data[0]) == 2
    return "".join(text).rstrip(" ")


def _cells(cells: Iterable[tuple[int, Char]]) -> StaticDefaultDict[int, Char]:
    made = StaticDefaultDict[int, Char](_BLANK)
    made.update(cells)
    return made


def _copy(cursor: Cursor) -> Cursor:
    copied = Cursor(cursor.x, cursor.y)
    copied.hidden = cursor.hidden
    return copied


_CONTROLS: dict[str, Callable[[Display], None]] = {
    "\b": Display.backspace,
    "\t": Display.tab,
    "\n": Display.linefeed,
    "\v": Display.linefeed,
    "\f": Display.linefeed,
    "\r": Display.carriage_return,
    "\x0e": Display.shift_out,
    "\x0f": Display.shift_in,
}
_ESCAPES: dict[str, Callable[[Display], None]] = {
    "c": Display.reset,
    "D": Display.index,
    "E": Display._next_line,
    "M": Display.reverse_index,
    "H": Display.set_tab_stop,
    "7": Display.save_cursor,
    "8": Display.restore_cursor,
}
_COUNTED: dict[str, Callable[[Display, int], None]] = {
    "@": Display.insert_characters,
    "A": Display.cursor_up,
    "B": Display.cursor_down,
    "C": Display.cursor_forward,
    "D": Display.cursor_back,
    "E": Display.cursor_down1,
    "F": Display.cursor_up1,
    "G": Display.cursor_to_column,
    "L": Display.insert_lines,
    "M": Display.delete_lines,
    "P": Display.delete_characters,
    "S": Display._scroll_up,
    "T": Display._scroll_down,
    "X": Display.erase_characters,
    "`": Display.cursor_to_column,
    "a": Display.cursor_forward,
    "d": Display.cursor_to_line,
    "e": Display.cursor_down,
    "g": Display.clear_tab_stop,
}

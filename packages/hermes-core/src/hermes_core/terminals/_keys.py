"""Key names as tmux spells them, to what a terminal sends for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["encode_keys"]

_PLAIN = {
    "enter": "\r",
    "escape": "\x1b",
    "tab": "\t",
    "btab": "\x1b[Z",
    "space": " ",
    "bspace": "\x7f",
}
_CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "end": "F", "home": "H"}
_EDITING = {"ic": 2, "insert": 2, "dc": 3, "delete": 3, "pageup": 5, "ppage": 5, "pgup": 5}
_EDITING |= {"pagedown": 6, "npage": 6, "pgdn": 6}
_EDITING |= {f"f{number}": code for number, code in zip(range(5, 13), (15, 17, 18, 19, 20, 21, 23, 24), strict=True)}
_FUNCTION = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}

_SHIFT, _META, _CONTROL = 1, 2, 4
_MODIFIERS = {"S": _SHIFT, "M": _META, "C": _CONTROL}

# What control makes of characters that are no letters, as xterm has it.
_CONTROLLED = {" ": 0, "@": 0, "2": 0, "[": 27, "3": 27, "\\": 28, "4": 28, "]": 29, "5": 29, "^": 30, "6": 30}
_CONTROLLED |= {"_": 31, "7": 31, "/": 31, "-": 31, "?": 127, "8": 127}


def encode_keys(keys: str | Sequence[str], *, literal: bool = False, application: bool = False) -> bytes:
    """Return what a terminal sends when keys are pressed.

    Each string is a key name (`Enter`, `Escape`, `Tab`, `BTab`, `Space`, `BSpace`, `Up`, `Down`, `Left`, `Right`,
    `Home`, `End`, `PageUp`, `PageDown`, `Insert`, `Delete`, `F1` to `F12`, tmux' short forms of them), in upper or
    lower case, or a key with modifiers (`C-c`, `^c`, `M-x`, `S-Up`, `C-M-Left`). Any other string is text, sent as it
    is.

    Args:
        keys: One string, or several.
        literal: Send all of it as text.
        application: The program asked for application cursor keys.

    Raises:
        UsageError: A string begins as a key with modifiers, and there is no such key.
    """
    strings = (keys,) if isinstance(keys, str) else keys
    return b"".join(_text(s) if literal else _encode(s, application) for s in strings)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _encode(string: str, application: bool) -> bytes:
    modifiers, key = _split(string)
    if not modifiers:
        sent = _special(key, 0, application)
        return _text(string if sent is None else sent)
    sent = _character(key, modifiers) if len(key) == 1 else _special(key, modifiers, application)
    if sent is not None:
        return _text(sent)
    if any(character.isspace() for character in string):
        return _text(string)
    raise UsageError(
        f"unknown key {string!r}",
        hint="keys are spelt as in tmux (C-c, M-x, S-Up, C-Left); to type this as text, send it with literal",
    )


def _split(string: str) -> tuple[int, str]:
    """The modifiers and the key that they apply to."""
    if len(string) == 2 and string[0] == "^":
        return _CONTROL, string[1]
    modifiers, key = 0, string
    while len(key) > 2 and key[1] == "-" and key[0] in _MODIFIERS:
        modifiers |= _MODIFIERS[key[0]]
        key = key[2:]
    return modifiers, key


def _character(key: str, modifiers: int) -> str | None:
    """One character with modifiers; shift is already in the character."""
    sent = key
    if modifiers & _SHIFT:
        if not key.isalpha():
            return None
        sent = key.upper()
    if modifiers & _CONTROL:
        code = ord(key.lower()) - 96 if key.isascii() and key.isalpha() else _CONTROLLED.get(key)
        if code is None:
            return None
        sent = chr(code)
    return f"\x1b{sent}" if modifiers & _META else sent


def _special(key: str, modifiers: int, application: bool) -> str | None:
    """A named key, or None if there is no such name."""
    name = key.lower()
    if name in _PLAIN:
        return _plain(name, modifiers)
    if name in _CURSOR:
        final = _CURSOR[name]
        return f"\x1b[1;{modifiers + 1}{final}" if modifiers else f"\x1b{'O' if application else '['}{final}"
    if name in _FUNCTION:
        return f"\x1b[1;{modifiers + 1}{_FUNCTION[name]}" if modifiers else f"\x1bO{_FUNCTION[name]}"
    if name in _EDITING:
        return f"\x1b[{_EDITING[name]};{modifiers + 1}~" if modifiers else f"\x1b[{_EDITING[name]}~"
    return None


def _plain(name: str, modifiers: int) -> str | None:
    sent = _PLAIN[name]
    left = modifiers & ~_META
    if left == _SHIFT and name == "tab":
        sent = _PLAIN["btab"]
    elif left == _CONTROL and name == "space":
        sent = "\0"
    elif left == _CONTROL and name == "bspace":
        sent = "\x08"
    elif left:
        return None  # a terminal sends nothing of its own for it
    return f"\x1b{sent}" if modifiers & _META else sent

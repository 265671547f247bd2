"""Takes apart what a program writes to its terminal: text, control characters, escape sequences.

In place of the parser of pyte, which remembers without bound what a sequence that never ends is made of, raises on
malformed ones, and prints the content of those that it does not know. The states are those of
https://vt100.net/emu/dec_ansi_parser.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SequenceParser", "SequenceReceiver"]

MOST_PARAMETERS = 16
LARGEST_PARAMETER = 9999

_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
# A line feed ends a string as well: programs that are cut off inside one must not make everything after it vanish.
_STRING_END = re.compile(r"[\x07\x0a\x18\x1a\x1b\x9c]")


class SequenceReceiver(Protocol):
    """Acts on what was found."""

    def text(self, text: str) -> None:
        """Printable characters."""

    def control(self, character: str) -> None:
        """A control character other than escape."""

    def escape(self, intermediate: str, final: str) -> None:
        """ESC, at most one intermediate character, and a final one."""

    def csi(self, prefix: str, parameters: list[int], intermediate: str, final: str) -> None:
        """A control sequence: private prefix or none, numbers (0 where left out), intermediate or none, final one."""


class SequenceParser:
    """Remembers where it is between two pieces, in constant memory.

    Args:
        receiver: Told of everything, in order.
    """

    def __init__(self, receiver: SequenceReceiver) -> None:
        self._receiver = receiver
        # Kept, because each look at a method makes a new object, and the states are compared.
        self._in_ground: Callable[[str], None] = self._ground
        self._in_string: Callable[[str], None] = self._string
        self._state: Callable[[str], None] = self._in_ground
        self._prefix = self._intermediate = ""
        self._parameters: list[int] = [0]

    def feed(self, text: str) -> None:
        """Take the next piece; it may end anywhere."""
        position, end = 0, len(text)
        while position < end:
            if self._state is self._in_ground:
                found = _TEXT.match(text, position)
                if found:
                    self._receiver.text(found.group())
                    position = found.end()
                    continue
            elif self._state is self._in_string:
                terminator = _STRING_END.search(text, position)
                if terminator is None:
                    return
                position = terminator.start()
            self._state(text[position])
            position += 1

    def _ground(self, character: str) -> None:
        if character == "\x1b":
            self._begin(self._escape)
        elif character < " ":
            self._receiver.control(character)

    def _escape(self, character: str) -> None:
        if character < " ":
            self._control_inside(character)
        elif character == "[":
            self._begin(self._csi)
        elif character in "]PX^_k":  # OSC, DCS, SOS, PM, APC, and the title of screen
            self._state = self._in_string
        elif character <= "/":
            self._intermediate = character
        else:
            self._state = self._in_ground
            self._receiver.escape(self._intermediate, character)

    def _csi(self, character: str) -> None:
        if character < " ":
            self._control_inside(character)
        elif "0" <= character <= "9":
            self._parameters[-1] = min(self._parameters[-1] * 10 + int(character), LARGEST_PARAMETER)
        elif character in ";:":
            if len(self._parameters) == MOST_PARAMETERS:
                self._prefix = "overlong"  # nobody knows such a prefix, so that it is read to its end and ignored
            else:
                self._parameters.append(0)
        elif "<" <= character <= "?":
            self._prefix = self._prefix or character
        elif character <= "/":
            self._intermediate = character
        elif "@" <= character <= "~":
            self._state = self._in_ground
            self._receiver.csi(self._prefix, self._parameters, self._intermediate, character)
        else:
            self._state = self._in_ground

    def _string(self, character: str) -> None:
        """A terminator, possibly the escape of ESC backslash."""
        self._state = self._in_ground
        if character in "\x1b\n":
            self._ground(character)

    def _control_inside(self, character: str) -> None:
        """A control character inside a sequence is acted on at once; CAN and SUB end the sequence, ESC begins anew."""
        if character == "\x1b":
            self._begin(self._escape)
        elif character in "\x18\x1a":
            self._state = self._in_ground
        else:
            self._receiver.control(character)

    def _begin(self, state: Callable[[str], None]) -> None:
        self._prefix = self._intermediate = ""
        self._parameters = [0]
        self._state = state

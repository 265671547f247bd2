"""The terminal that a person sits at, lent to a program that runs somewhere else."""

from __future__ import annotations

import os
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["raw_mode", "terminal_size"]

USUAL_SIZE = (24, 80)


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Pass every key on as it is, and nothing else, until left; then the terminal is as it was."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)  # what was typed ahead stays
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Rows and columns; usual ones for a terminal that does not know."""
    columns, rows = os.get_terminal_size(descriptor)
    return (rows, columns) if rows and columns else USUAL_SIZE

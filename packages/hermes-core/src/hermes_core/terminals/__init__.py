"""Terminals: what keys send, what programs show, how it is recorded."""

from hermes_core.terminals._asciicast import AsciicastDecoder, AsciicastWriter
from hermes_core.terminals._keys import encode_keys
from hermes_core.terminals._recording import Recording
from hermes_core.terminals._screen import TerminalScreen

__all__ = [
    "AsciicastDecoder",
    "AsciicastWriter",
    "Recording",
    "TerminalScreen",
    "encode_keys",
]

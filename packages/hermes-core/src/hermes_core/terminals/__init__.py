"""Terminals: what keys send, what programs show, how it is recorded."""

from hermes_core.terminals._asciicast import AsciicastDecoder, AsciicastWriter
from hermes_core.terminals._keys import encode_keys
from hermes_core.terminals._recording import Recording
from hermes_core.terminals._screen import TerminalScreen
from hermes_core.terminals._session import KeysSent, TerminalSession

__all__ = [
    "AsciicastDecoder",
    "AsciicastWriter",
    "KeysSent",
    "Recording",
    "TerminalScreen",
    "TerminalSession",
    "encode_keys",
]

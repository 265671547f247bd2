"""Which ports an agent for this machine alone listens on."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack

from hermes_core.exceptions import ConfigError

__all__ = ["take_ports"]

HOST = "127.0.0.1"
USES = ("API", "RPC", "Serf")
HINT = "--http-port N takes N and the two after it, and --http-port 0 free ones"


def take_ports(first: int) -> tuple[int, int, int]:
    """See that an agent may listen on three ports, and choose free ones for 0.

    Args:
        first: Port of the API; the others are the two that follow.

    Raises:
        ConfigError: One of them is in use, or not allowed.
    """
    with ExitStack() as held:
        if not first:
            return _free(held), _free(held), _free(held)
        for number, use in enumerate(USES):
            try:
                _hold(held, first + number)
            except OSError as error:
                taken = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
                raise ConfigError(
                    f"port {first + number} of {HOST}, for the agent's {use}, {taken}", hint=HINT
                ) from error
    return first, first + 1, first + 2


def _free(held: ExitStack) -> int:
    while True:
        try:
            return _hold(held, 0)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # It was free by TCP alone.


def _hold(held: ExitStack, port: int) -> int:
    """Take a port for a moment, by TCP and by UDP, as servers do among themselves."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        probe = held.enter_context(socket.socket(socket.AF_INET, kind))
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        port = probe.getsockname()[1]
    return port

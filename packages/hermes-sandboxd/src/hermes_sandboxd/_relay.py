"""`hermes-sandboxd relay`: carries standard input and output to the daemon's socket."""

from __future__ import annotations

import os
import socket
import threading

_CHUNK = 262144


def relay(path: str) -> int:
    """Copy both ways until either side has ended; return the exit code.

    Two blocking threads: each direction waits for its own peer only, so that neither can block the other.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError as error:
        os.write(2, f"hermes-sandboxd: {path}: {error.strerror}\n".encode())
        return 3
    threading.Thread(target=_inward, args=(connection,), daemon=True).start()
    try:
        while True:
            data = connection.recv(_CHUNK)
            if not data:
                return 0
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    except OSError:
        # Whoever read our output is gone.
        return 0


def _inward(connection: socket.socket) -> None:
    try:
        while True:
            data = os.read(0, _CHUNK)
            if not data:
                break
            connection.sendall(data)
    except OSError:
        # The daemon hung up, which the other direction notices too.
        pass
    try:
        # The daemon closes in turn, which ends the other direction after its last byte.
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass

"""Whether a port is free, and who has it if not."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from hermes_core.exceptions import ConfigError

__all__ = ["take_port"]

_LISTENS = "0A"  # state of a socket in /proc/net/tcp


def take_port(host: str, port: int) -> int:
    """See that a server may listen on a port, and choose a free one for 0.

    Raises:
        ConfigError: It is in use, not allowed, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            chosen: int = probe.getsockname()[1]
            return chosen
    except socket.gaierror as error:
        raise ConfigError(
            f"host {host!r} is not known", hint="--host 127.0.0.1, or 0.0.0.0 for every network"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            who = _listener(port)
            raise ConfigError(
                f"port {port} of {host} is in use" + (f" by {who}" if who else ""), hint="--port 0 takes a free one"
            ) from error
        raise ConfigError(
            f"cannot listen on port {port} of {host}: {error.strerror}", hint="--host and --port name another place"
        ) from error


def _listener(port: int) -> str | None:
    """Who listens on a port, as far as this user may see it: `python3 (process 123)`."""
    inodes = {
        fields[9]
        for table in ("tcp", "tcp6")
        for line in _lines(Path("/proc/net") / table)[1:]
        if (fields := line.split())[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port
    }
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(handle) in wanted for handle in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:
            continue  # another user's, or ended meanwhile
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []

"""Looks at the processes of allocations, which tell by what is mounted for them whose they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.process_tree import supervisors_of

__all__ = ["command_line", "daemon_of", "having", "kill_supervisors"]

ROOT_FIELD = 3
"""Of a line of `mountinfo`: the folder that is seen, as its disk has it."""


def having(allocation: str) -> list[int]:
    """Processes that see something of an allocation's folder, or have its name in their environment."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _has(pid, allocation)]


def daemon_of(allocation: str) -> int:
    """The daemon of a sandbox, whatever it is run by."""
    daemons = [pid for pid in having(allocation) if b"hermes_sandboxd" in command_line(pid)]
    [first] = [pid for pid in daemons if _parent(pid) not in daemons]
    return first


def kill_supervisors(allocation: str) -> None:
    """Kill the slots of a sandbox."""
    for pid in supervisors_of(daemon_of(allocation)):
        os.kill(pid, signal.SIGKILL)


def command_line(pid: int) -> bytes:
    """What a process was started with; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _has(pid: int, allocation: str) -> bool:
    try:
        mounts = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    seen = any(allocation in line.split(" ", ROOT_FIELD + 1)[ROOT_FIELD] for line in mounts)
    return seen or allocation.encode() in environment


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

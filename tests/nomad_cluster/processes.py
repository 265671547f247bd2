"""Ends what tasks of a Nomad client have left on this machine: processes, containers, mounts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["descendants", "end_containers", "end_processes", "silenced", "unmount_below"]

LABEL = "com.hashicorp.nomad.alloc_id"
"""Nomad's Docker driver says with it whose a container is."""
GONE_S = 10.0


def descendants(pid: int) -> list[int]:
    """Return the processes below another, the youngest generation last."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # The name of a program may have spaces and brackets in it.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, generation = [], children.get(pid, [])
    while generation:
        found += generation
        generation = [child for each in generation for child in children.get(each, [])]
    return found


def _is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end_processes(pids: Iterable[int]) -> int:
    """Kill processes at once and wait until they are gone; return how many there were."""
    ended = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    deadline = time.monotonic() + GONE_S
    while any(map(_is_running, ended)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return len(ended)


def end_containers(allocations: Iterable[str]) -> int:
    """Kill and remove the containers of allocations; return how many there were."""
    import docker

    try:
        engine = docker.from_env()
    except docker.errors.DockerException:
        return 0  # no engine, no containers
    with closing(engine):
        wanted = frozenset(allocations)
        marked = engine.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
        found = [container for container in marked if container.labels[LABEL] in wanted]
        for container in found:
            with suppress(docker.errors.APIError):
                container.remove(force=True)
    return len(found)


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, the innermost first."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)


@contextmanager
def silenced(first: int, last: int) -> Iterator[None]:
    """Drop everything from and to some TCP ports of this machine: no peer learns that a connection has ended."""
    ports = [("--dport", f"{first}:{last}"), ("--sport", f"{first}:{last}")]
    rules = [["INPUT", "-i", "lo", "-p", "tcp", *port, "-j", "DROP"] for port in ports]
    with ExitStack() as stack:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-I", *rule], check=True)
            stack.callback(subprocess.run, ["iptables", "-w", "-D", *rule], check=False)
        yield

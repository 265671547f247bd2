"""Starting clusters for tests, and ending them with everything that they have started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx

from .cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = [
    "RunningAgent",
    "RunningStandIn",
    "given_cluster",
    "nomad_binary",
    "running_agent",
    "running_stand_in",
    "running_stand_in_async",
]

ROOT = Path(__file__).resolve().parents[3]
USUAL = ("docker", "raw_exec", "docker_volumes")
"""What is on unless it is switched off."""


def nomad_binary() -> str | None:
    """Return the program of the real agent: what HERMES_TEST_NOMAD names, or `nomad` on PATH."""
    return os.environ.get("HERMES_TEST_NOMAD") or shutil.which("nomad")


def given_cluster() -> Cluster | None:
    """Return the cluster that the standard variables name, if they do."""
    if (address := os.environ.get("NOMAD_ADDR")) is None:
        return None
    ca, cert, key = (os.environ.get(f"NOMAD_{name}") for name in ("CACERT", "CLIENT_CERT", "CLIENT_KEY"))
    pair = (Path(cert), Path(key)) if cert and key else None
    return Cluster(address, "given", os.environ.get("NOMAD_TOKEN"), Path(ca) if ca else None, pair)


def free_ports(count: int) -> list[int]:
    """Find free ports on the loopback address."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def arguments(options: dict[str, Any]) -> list[str]:
    """Write options as on the command line: `memory=100` is `--memory 100`, `docker=False` is `--no-docker`."""
    written = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            if value != (name in USUAL):
                written.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            written += [f"--{flag}", ",".join(value) if isinstance(value, tuple | list) else str(value)]
    return written


@dataclass(slots=True)
class RunningStandIn:
    """A stand-in in a process of its own, which can be killed and started again."""

    folder: Path
    options: dict[str, Any]
    port: int
    process: subprocess.Popen[str] | None = None
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def cluster(self) -> Cluster:
        """How to talk to it."""
        options = self.options
        scheme = "https" if options.get("tls_cert") else "http"
        ca, pair = options.get("tls_ca"), None
        if ca is not None:
            pair = (Path(options["tls_cert"]), Path(options["tls_key"]))
        trusted = Path(ca or options["tls_cert"]) if options.get("tls_cert") else None
        address = f"{scheme}://{options.get('host', '127.0.0.1')}:{self.port}"
        return Cluster(address, "stand-in", options.get("acl_token"), trusted, pair, can_be_killed=True)

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        command = [sys.executable, "-m", "tests.stand_ins.nomad", "--data-dir", str(self.folder)]
        command += ["--port", str(self.port), "--end-with-stdin", *arguments(self.options)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        with self.process.stdout as output:
            line = output.readline()
        if not line:
            raise RuntimeError(f"the stand-in has ended with {self.process.wait()}")
        self.said = json.loads(line)
        self.port = int(self.said["address"].rpartition(":")[2])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the agent's process, and leave its tasks."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()
        self._close()

    def _close(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process = None

    def end(self) -> None:
        """End it with all its tasks."""
        if self.process is not None and self.process.poll() is not None:
            self._close()
        if self.process is None:
            self.start()  # only the agent knows which tasks are its own
        assert self.process is not None
        try:
            with self.cluster.client() as client:
                client.post("/stand-in/end").raise_for_status()
            self.process.wait(30)
        finally:
            self.process.kill()
            self.process.wait()
            self._close()


@contextmanager
def running_stand_in(**options: Any) -> Iterator[RunningStandIn]:
    """Run a stand-in with these options (`memory=100`, `docker=False`, …) on a free port."""
    folder = Path(tempfile.mkdtemp(prefix="hermes-stand-in-"))
    running = RunningStandIn(folder, options, int(options.pop("port", 0)))
    try:
        running.start()
        try:
            yield running
        finally:
            running.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(slots=True)
class RunningAgent:
    """A real agent, server and client in one, which can be killed and started again."""

    program: str
    folder: Path
    ports: list[int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def cluster(self) -> Cluster:
        """How to talk to it."""
        return Cluster(f"http://127.0.0.1:{self.ports[0]}", "agent", can_be_killed=True)

    def configuration(self) -> dict[str, Any]:
        """Return what works on one machine."""
        names = ("http", "rpc", "serf")
        capabilities = "audit_write chown dac_override fowner fsetid kill mknod net_bind_service setfcap setgid setpcap"
        docker = {
            "volumes": {"enabled": True},
            # An agent takes containers of another one on the same machine for its own, and removes them.
            "gc": {"image": False, "dangling_containers": {"enabled": False}},
            "allow_caps": [*capabilities.split(), "setuid", "sys_chroot", "sys_admin"],
        }
        clouds = "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"
        return {
            "name": "hermes-test",
            "data_dir": str(self.folder / "data"),
            "bind_addr": "127.0.0.1",
            "advertise": dict.fromkeys(names, "127.0.0.1"),
            "ports": dict(zip(names, self.ports, strict=True)),
            "disable_update_check": True,
            "server": {"enabled": True, "bootstrap_expect": 1},
            "client": {
                **{"enabled": True, "network_interface": "lo", "options": {"fingerprint.denylist": clouds}},
                **{"cpu_total_compute": 8000, "memory_total_mb": 16384},
            },
            "plugin": [{"raw_exec": {"config": {"enabled": True}}}, {"docker": {"config": docker}}],
        }

    def start(self) -> None:
        """Start it, and wait until its node is ready."""
        file = self.folder / "agent.json"
        file.write_text(json.dumps(self.configuration()))
        with (self.folder / "log").open("ab") as log:
            command = [self.program, "agent", "-config", str(file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.cluster.eventually(self._ready, "no node becomes ready", seconds=90.0)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            nodes = self.cluster.answer("GET", "/v1/nodes")
        except httpx.HTTPError:
            return False
        if not nodes.is_success:
            return False
        drivers = [node["Drivers"] for node in nodes.json() if node["Status"] == "ready"]
        return any(found.get("raw_exec", {}).get("Healthy") for found in drivers)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the agent's process, and leave its tasks."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()
        self.process = None

    def end(self) -> None:
        """Purge all jobs, and end the agent."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        cluster = self.cluster
        for job in cluster.call("GET", "/v1/jobs", namespace="*"):
            cluster.purge(job["ID"])
        data = self.folder / "data" / "alloc"
        cluster.eventually(lambda: not list(data.glob("*-*")), "the agent does not remove what is purged")
        self.kill(signal.SIGTERM)


@contextmanager
def running_agent() -> Iterator[RunningAgent]:
    """Run a real agent on free loopback ports; it must be installed (`nomad_binary`)."""
    program = nomad_binary()
    if program is None:
        raise RuntimeError("nomad is not on PATH, and HERMES_TEST_NOMAD does not name it")
    folder = Path(tempfile.mkdtemp(prefix="hermes-nomad-"))
    folder.chmod(0o755)  # tasks of other users pass through it
    running = RunningAgent(program, folder, free_ports(3))
    try:
        running.start()
        try:
            yield running
        finally:
            running.end()
    finally:
        if running.process is not None:
            running.kill()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (target := line.split()[1]).startswith(str(folder)):
                subprocess.run(["umount", target], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def running_stand_in_async(**options: Any) -> AsyncIterator[RunningStandIn]:
    """Do what `running_stand_in` does, without blocking the event loop."""
    manager = running_stand_in(**options)
    running = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield running
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(manager.__exit__, None, None, None)

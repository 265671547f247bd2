"""What a stand-in is started with."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCKER_CAPABILITIES", "Options", "parse"]

DOCKER_CAPABILITIES = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod"),
    *("net_bind_service", "setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)
"""What the docker driver lets tasks have unless the operator says otherwise."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that can be said on the command line."""

    data_dir: Path
    port: int
    host: str = "127.0.0.1"
    cpu: int = 8000
    memory: int = 16384
    disk: int = 51200
    nodes: int = 1
    datacenter: str = "dc1"
    node_pool: str = "default"
    region: str = "global"
    version: str = "2.0.5"
    namespaces: tuple[str, ...] = ()
    acl_token: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    docker: bool = True
    docker_allow_caps: tuple[str, ...] = DOCKER_CAPABILITIES
    docker_allow_privileged: bool = False
    docker_volumes: bool = True
    raw_exec: bool = True
    min_dynamic_port: int = 20000
    max_dynamic_port: int = 31999
    stream_heartbeat: float = 10.0
    event_buffer: int = 100
    node_ttl: float = 10.0
    preemption: bool = False
    slow_failures: float = 0.0
    end_with_stdin: bool = False
    mock: int = 0
    mock_rate: float = 0.0


def names(text: str) -> tuple[str, ...]:
    """Read a list with commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def capabilities(text: str) -> tuple[str, ...]:
    """Read capabilities; a leading `+` adds to the defaults."""
    if text.startswith("+"):
        return (*DOCKER_CAPABILITIES, *capabilities(text[1:]))
    return tuple(name.lower().removeprefix("cap_") for name in names(text))


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser("tests.stand_ins.nomad", description="A stand-in for a Nomad agent.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address of the agent and of its nodes")
    parser.add_argument("--cpu", type=int, default=8000, help="MHz of each node")
    parser.add_argument("--memory", type=int, default=16384, help="MB of each node")
    parser.add_argument("--disk", type=int, default=51200, help="MB of each node")
    parser.add_argument("--nodes", type=int, default=1, help="simulated nodes on this machine")
    for name, default in {"datacenter": "dc1", "node-pool": "default", "region": "global", "version": "2.0.5"}.items():
        parser.add_argument(f"--{name}", default=default)
    parser.add_argument("--namespaces", type=names, default=(), help="besides `default`")
    parser.add_argument("--acl-token")
    for name in ("tls-cert", "tls-key", "tls-ca"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--no-docker", dest="docker", action="store_false")
    parser.add_argument("--no-raw-exec", dest="raw_exec", action="store_false")
    parser.add_argument("--docker-allow-caps", type=capabilities, default=DOCKER_CAPABILITIES, help="+CAP adds one")
    parser.add_argument("--docker-allow-privileged", action="store_true")
    parser.add_argument("--no-docker-volumes", dest="docker_volumes", action="store_false")
    parser.add_argument("--min-dynamic-port", type=int, default=20000)
    parser.add_argument("--max-dynamic-port", type=int, default=31999)
    parser.add_argument("--stream-heartbeat", type=float, default=10.0, help="seconds between two `{}`")
    parser.add_argument("--event-buffer", type=int, default=100, help="changes that a late stream still gets")
    parser.add_argument("--node-ttl", type=float, default=10.0, help="seconds until a silent node is down")
    parser.add_argument("--preemption", action="store_true", help="jobs of higher priority displace others")
    about = "seconds until it is told that a task could not start: about 4 on a real agent"
    parser.add_argument("--slow-failures", type=float, default=0.0, help=about)
    about = "end with all tasks when standard input ends, that is with who has started it"
    parser.add_argument("--end-with-stdin", action="store_true", help=about)
    parser.add_argument("--mock", type=int, default=0, help="allocations that only change their state")
    parser.add_argument("--mock-rate", type=float, default=0.0, help="changes a second of those")
    return Options(**vars(parser.parse_args(arguments)))

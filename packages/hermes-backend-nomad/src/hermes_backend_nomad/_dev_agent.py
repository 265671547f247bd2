"""The configuration of agents that run on one machine, for trying things and for tests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["DevAgent", "default_folder", "dev_configuration"]

# They ask metadata addresses and other services for what no machine of one's own has.
FINGERPRINTS_LEFT_OUT = ("env_aws", "env_gce", "env_azure", "env_digitalocean", "consul", "vault")
# Nomad's own defaults, and what it takes to have slots in namespaces of their own.
CAPABILITIES = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "mknod", "net_bind_service"),
    *("setfcap", "setgid", "setpcap", "setuid", "sys_chroot", "sys_admin"),
)


@dataclass(frozen=True, slots=True)
class DevAgent:
    """One agent: a server and a client at once, or one of the two in a cluster of agents on one machine.

    Attributes:
        data_dir: Folder of its own.
        name: Unique among the agents of a cluster.
        address: What it listens on, a loopback address.
        http_port: Port of its API.
        rpc_port: Port for other agents.
        serf_port: Port for other servers.
        servers: How many servers the cluster has, if this is one of them; 0 if it is none.
        client: Whether it runs tasks.
        join: Addresses of servers: `HOST:SERF_PORT` for a server, `HOST:RPC_PORT` for a client alone.
        docker: Whether it runs containers by Docker.
        acl: Whether it asks for tokens.
        dynamic_ports: First and last port for tasks; Nomad's own range if None. Clients of one machine share its ports.
        further: Further blocks, in HCL.
    """

    data_dir: Path
    name: str = "hermes-dev"
    address: str = "127.0.0.1"
    http_port: int = 4646
    rpc_port: int = 4647
    serf_port: int = 4648
    servers: int = 1
    client: bool = True
    join: Sequence[str] = ()
    docker: bool = True
    acl: bool = False
    dynamic_ports: tuple[int, int] | None = None
    further: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """Where its API is, as `NOMAD_ADDR` has it."""
        return f"http://{self.address}:{self.http_port}"


def default_folder() -> Path:
    """`$XDG_STATE_HOME/hermes/nomad`, else `~/.local/state/hermes/nomad`; for root, `/var/lib/hermes/nomad`.

    Root's home is closed to the ordinary users that tasks run as.
    """
    if shared := os.environ.get("XDG_STATE_HOME"):
        return Path(shared).absolute() / "hermes" / "nomad"
    return Path("/var/lib/hermes/nomad") if os.geteuid() == 0 else Path.home() / ".local/state/hermes/nomad"


def dev_configuration(agent: DevAgent) -> str:
    """Write an agent's configuration, in HCL."""
    ports = {"http": agent.http_port, "rpc": agent.rpc_port, "serf": agent.serf_port}
    top: dict[str, object] = {"name": agent.name, "data_dir": str(agent.data_dir), "bind_addr": agent.address}
    parts = [
        "\n".join(_settings({**top, "disable_update_check": True}, "")),
        _block("ports", ports),
        _block("advertise", dict.fromkeys(ports, agent.address)),
        *_server(agent),
        *_client(agent),
        _block("acl", {"enabled": True}) if agent.acl else "",
        agent.further.strip("\n"),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _server(agent: DevAgent) -> Iterator[str]:
    if not agent.servers:
        return
    further = [_block("default_scheduler_config", {"memory_oversubscription_enabled": True})]
    if agent.join:
        further.insert(0, _block("server_join", {"retry_join": list(agent.join)}))
    yield _block("server", {"enabled": True, "bootstrap_expect": agent.servers}, *further)


def _client(agent: DevAgent) -> Iterator[str]:
    if not agent.client:
        return
    settings: dict[str, object] = {"enabled": True, "network_interface": "lo"}
    settings["alloc_mounts_dir"] = str(agent.data_dir / "alloc_mounts")  # and not beside it
    if not agent.servers:
        settings["servers"] = list(agent.join)
    if agent.dynamic_ports is not None:
        settings["min_dynamic_port"], settings["max_dynamic_port"] = agent.dynamic_ports
    options = {"fingerprint.denylist": ",".join(FINGERPRINTS_LEFT_OUT)}
    if not agent.docker:
        options["driver.denylist"] = "docker"
    yield _block("client", settings, _block("options =", options))
    yield _block('plugin "raw_exec"', {}, _block("config", {"enabled": True}))
    if agent.docker:
        # One agent would take containers of another on the same machine for its own, and remove them.
        kept = _block("gc", {"image": False}, _block("dangling_containers", {"enabled": False}))
        settings = {"allow_caps": list(CAPABILITIES)}
        yield _block('plugin "docker"', {}, _block("config", settings, _block("volumes", {"enabled": True}), kept))


def _block(head: str, settings: Mapping[str, object], *inner: str) -> str:
    parts = ["\n".join(_settings(settings, "  "))] if settings else []
    parts += ["\n".join(f"  {line}" if line else "" for line in block.splitlines()) for block in inner]
    body = "\n\n".join(parts)
    return f"{head} {{\n{body}\n}}"


def _settings(settings: Mapping[str, object], indent: str) -> Iterator[str]:
    names = {name: name if name.isidentifier() else json.dumps(name) for name in settings}
    width = max(map(len, names.values()))
    return (f"{indent}{names[name].ljust(width)} = {json.dumps(value)}" for name, value in settings.items())

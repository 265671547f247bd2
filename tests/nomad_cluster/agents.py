"""Three servers and three clients of one cluster, each with a loopback address of its own, from one `nomad` binary."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import httpx
from tests.nomad_cluster.processes import descendants, end_containers, end_processes, unmount_below

from hermes_backend_nomad._dev_agent import DevAgent, dev_configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

__all__ = ["Agent", "Cluster"]

HTTP_PORT, RPC_PORT, SERF_PORT = 4646, 4647, 4648
SERVERS, CLIENTS = (11, 12, 13), (21, 22, 23)
FIRST_PORT, PORTS = 22_000, 500
"""The clients share the ports of one machine, and each has some for itself."""
READY_S = 120.0
LEADERLESS_S = 30.0


@dataclass(eq=False, slots=True)
class Agent:
    """One process of the cluster.

    Attributes:
        facts: What it was started with.
        process: It.
    """

    facts: DevAgent
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        """As the cluster knows it."""
        return self.facts.name

    @property
    def url(self) -> str:
        """Where it is asked."""
        return self.facts.url

    @property
    def allocations(self) -> list[str]:
        """What was ever placed on it, by the folders that it made."""
        folder = self.facts.data_dir / "alloc"
        return [each.name for each in folder.iterdir()] if folder.is_dir() else []

    def kill(self) -> None:
        """End it as a loss of power does; what it started goes on."""
        self.process.kill()
        self.process.wait()


class Cluster:
    """A cluster on this machine; a context manager that leaves nothing of it.

    Args:
        nomad: The program.
        folder: For everything that the agents write; it must be there, and is emptied.
    """

    def __init__(self, nomad: Path, folder: Path) -> None:
        self._nomad = nomad
        self._folder = folder
        self._network = _free_network()
        self._http = httpx.Client(trust_env=False, timeout=5.0)
        self.servers: list[Agent] = []
        self.clients: list[Agent] = []

    @property
    def agents(self) -> list[Agent]:
        """All of them."""
        return [*self.servers, *self.clients]

    def __enter__(self) -> Self:
        """Start everything, and wait until the clients take work."""
        try:
            peers = [f"{self._network}.{number}:{SERF_PORT}" for number in SERVERS]
            for number in SERVERS:
                self.servers.append(self._start("server", number, servers=len(SERVERS), client=False, join=peers))
            asked = [f"{self._network}.{number}:{RPC_PORT}" for number in SERVERS]
            for order, number in enumerate(CLIENTS):
                ports = (FIRST_PORT + order * PORTS, FIRST_PORT + (order + 1) * PORTS - 1)
                self.clients.append(self._start("client", number, servers=0, join=asked, dynamic_ports=ports))
            self._wait(READY_S, lambda: self._ready() == len(CLIENTS), "the clients are not ready")
            self._spread()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything that was started, the tasks too."""
        self._end()

    # Asking

    def get(self, path: str, **params: str) -> Any:
        """Ask whichever server answers."""
        deadline = time.monotonic() + LEADERLESS_S
        while True:
            for server in self.servers:
                if server.process.poll() is None:
                    with suppress(httpx.HTTPError):
                        answer = self._http.get(f"{server.url}/v1/{path}", params=params)
                        if answer.is_success:
                            return answer.json()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no server answers {path}")
            time.sleep(0.2)

    def leader(self) -> Agent:
        """The server that leads."""
        address = self.get("status/leader").partition(":")[0]
        return next(server for server in self.servers if server.facts.address == address)

    def node(self, client: Agent) -> dict[str, Any]:
        """What the servers say of a client's node."""
        return next(node for node in self.get("nodes") if node["Name"] == client.name)

    def allocations(self, client: Agent) -> list[dict[str, Any]]:
        """What the servers say of the allocations of a client's node."""
        found: list[dict[str, Any]] = self.get(f"node/{self.node(client)['ID']}/allocations")
        return found

    def left(self) -> list[str]:
        """Jobs and variables that there are."""
        return [job["ID"] for job in self.get("jobs")] + [each["Path"] for each in self.get("vars") or ()]

    # Harm

    def lose(self, client: Agent) -> int:
        """Lose the machine of a client, with everything that ran on it; return how many processes were ended."""
        # The agent first: of what happens to its tasks it shall tell nobody.
        family = descendants(client.process.pid)
        client.kill()
        return end_processes(family) + end_containers(client.allocations)

    # Starting and ending

    def _start(self, kind: str, number: int, **settings: Any) -> Agent:
        address = f"{self._network}.{number}"
        name = f"{kind}-{address}"
        folder = self._folder / name
        # Ordinary users pass through to what their tasks have there; Nomad would make it for root alone.
        (folder / "data").mkdir(mode=0o711, parents=True)
        agent = DevAgent(folder / "data", name, address, HTTP_PORT, RPC_PORT, SERF_PORT, **settings)
        configuration = folder / "agent.hcl"
        configuration.write_text(dev_configuration(agent))
        variables = {key: value for key, value in os.environ.items() if not key.startswith("NOMAD_")}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._nomad), "agent", "-config", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,  # Ctrl-C is for whoever ends them in order
            )
        return Agent(agent, process)

    def _spread(self) -> None:
        """Have sandboxes on all machines, and not as many as it can take on the first."""
        path = "operator/scheduler/configuration"
        wanted = self.get(path)["SchedulerConfig"] | {"SchedulerAlgorithm": "spread"}
        self._http.put(f"{self.leader().url}/v1/{path}", json=wanted).raise_for_status()

    def _ready(self) -> int:
        nodes = self.get("nodes")
        return sum(
            node["Status"] == "ready" and node["SchedulingEligibility"] == "eligible" and "raw_exec" in node["Drivers"]
            for node in nodes
        )

    def _wait(self, seconds: float, done: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            for agent in self.agents:
                if agent.process.poll() is not None:
                    log = (self._folder / agent.name / "log").read_text(errors="replace").splitlines()
                    raise RuntimeError(f"{agent.name} has ended: {' | '.join(log[-5:])}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise} after {seconds:g} s")
            time.sleep(0.2)

    def _end(self) -> None:
        family = [pid for client in self.clients for pid in descendants(client.process.pid)]
        for agent in self.agents:
            agent.kill()
        end_processes(family)
        end_containers([each for client in self.clients for each in client.allocations])
        unmount_below(self._folder)
        for each in self._folder.iterdir():
            shutil.rmtree(each, ignore_errors=True)
        self._http.close()


def _free_network() -> str:
    """The first three numbers of loopback addresses that nobody's cluster has."""
    for number in range(256):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((f"127.0.{number}.{SERVERS[0]}", HTTP_PORT))
            except OSError:
                continue
            return f"127.0.{number}"
    raise RuntimeError(f"port {HTTP_PORT} is in use on all loopback addresses")

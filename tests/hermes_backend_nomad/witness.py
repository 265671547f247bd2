"""Hears of all sandboxes of a test, and looks at what is left of them."""

from __future__ import annotations

import http.client
import json
import socket
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import docker
from tests.hermes_backend_nomad.belongings import jobs_of, variables_of
from tests.hermes_backend_nomad.processes import having

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stand_ins.nomad.cluster import Cluster

__all__ = ["Witness", "witnessing"]

PATIENCE_S = 30.0


class Witness:
    """What the cluster's events say of jobs whose names begin with `job_id`.

    A job that is purged takes its allocations along, so that only who was there knows of them.

    Attributes:
        job_id: The `sandbox_job_id` of what is watched.
        lines: Every line of the event stream in which it is mentioned.
        on_allocation: What is done as soon as there is a new allocation.
    """

    def __init__(self, cluster: Cluster, job_id: str) -> None:
        self.job_id = job_id
        self.lines: list[str] = []
        self.on_allocation: Callable[[], object] = lambda: None
        self._cluster = cluster
        self._allocations: dict[str, str] = {}

    @property
    def jobs(self) -> set[str]:
        """The jobs of which there ever were allocations."""
        return set(self._allocations.values())

    @property
    def allocations(self) -> list[str]:
        """The allocations that there ever were."""
        return list(self._allocations)

    def in_sandboxes(self) -> list[str]:
        """Containers and processes of sandboxes, as this machine has them."""
        found = [f"container {name}" for each in self.allocations for name in containers(each)]
        return found + [f"process {pid} of allocation {each}" for each in self.allocations for pid in having(each)]

    def left(self) -> list[str]:
        """What there is, on the cluster and on this machine."""
        jobs = [f"job {job['ID']} ({job['Status']})" for job in jobs_of(self._cluster, self.job_id)]
        variables = [f"variable {path}" for path in variables_of(self._cluster, self.job_id)]
        return [*jobs, *variables, *self.in_sandboxes()]

    def hear(self, line: str) -> None:
        """Take a line of the stream."""
        if f'"{self.job_id}-' not in line:
            return
        self.lines.append(line)
        for event in json.loads(line)["Events"]:
            allocation: dict[str, Any] = event["Payload"].get("Allocation") or {}
            if allocation.get("JobID", "").startswith(f"{self.job_id}-"):
                if allocation["ID"] not in self._allocations:
                    self.on_allocation()
                self._allocations[allocation["ID"]] = allocation["JobID"]


@contextmanager
def witnessing(cluster: Cluster, job_id: str) -> Iterator[Witness]:
    """Follow the cluster's events in a thread."""
    witness, listening = Witness(cluster, job_id), Event()
    where, headers = urlsplit(cluster.address), {"X-Nomad-Token": cluster.token} if cluster.token else {}
    with closing(http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_S)) as connection:
        connection.connect()
        stream = connection.sock  # which the connection forgets as soon as it is answered
        thread = Thread(target=_follow, args=(connection, headers, witness, listening), daemon=True)
        thread.start()
        try:
            assert listening.wait(PATIENCE_S), "the cluster's events cannot be followed"
            yield witness
        finally:
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
            thread.join()


def _follow(
    connection: http.client.HTTPConnection, headers: dict[str, str], witness: Witness, listening: Event
) -> None:
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/v1/event/stream?topic=*&namespace=*", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        listening.set()
        while line := response.readline():
            witness.hear(line.decode())


def containers(allocation: str) -> list[str]:
    """Names of the containers of an allocation."""
    try:
        client = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    except docker.errors.DockerException:
        return []
    with closing(client):
        return [found["Names"][0] for found in client.containers(all=True, filters={"name": allocation})]

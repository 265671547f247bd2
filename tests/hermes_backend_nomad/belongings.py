"""What runs have on a cluster, apart from what the backend itself knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stand_ins.nomad.cluster import Cluster

__all__ = ["jobs_of", "leases_of", "read_variable", "variables_of", "wait_until"]

PATIENCE_S = 60.0
HOLDERS = "hermes/holders/"


def jobs_of(cluster: Cluster, job_id: str) -> list[dict[str, Any]]:
    """Jobs of a `sandbox_job_id`."""
    return list(cluster.call("GET", "/v1/jobs", prefix=f"{job_id}-", meta="true"))


def variables_of(cluster: Cluster, job_id: str) -> list[str]:
    """Paths of the variables of those jobs."""
    found = cluster.call("GET", "/v1/vars", prefix=f"nomad/jobs/{job_id}-") or ()
    return [variable["Path"] for variable in found]


def leases_of(cluster: Cluster, pid: int) -> list[str]:
    """Paths of the variables by which a process of this machine shows that it lives."""
    paths = [variable["Path"] for variable in cluster.call("GET", "/v1/vars", prefix=HOLDERS) or ()]
    read = {path: cluster.answer("GET", f"/v1/var/{path}") for path in paths}  # others come and go
    return [path for path, said in read.items() if said.is_success and said.json()["Items"].get("pid") == str(pid)]


def read_variable(cluster: Cluster, path: str) -> dict[str, Any]:
    """A variable with its times."""
    return dict(cluster.call("GET", f"/v1/var/{path}"))


def wait_until(condition: Callable[[], object], what: Callable[[], str] | str) -> None:
    """Wait until something is so, else say what is the matter."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.05)

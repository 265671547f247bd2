"""Says for `hermes doctor` whether a cluster answers, and whether its nodes have a driver."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from hermes_backend_nomad._address import find_address
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._config import ClusterSettings
from hermes_backend_nomad._errors import PassingError
from hermes_core.diagnosis import Finding
from hermes_core.exceptions import HermesError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["diagnose"]


def diagnose(backend: str, driver: str) -> Iterator[Finding]:
    """Ask the agent that the environment names; nothing is started.

    Args:
        backend: Whom it is about.
        driver: What its nodes need.
    """
    yield anyio.run(partial(_look, f"backend {backend}", driver))


async def _look(name: str, driver: str) -> Finding:
    try:
        address = find_address(ClusterSettings())
        async with Cluster(address, patience_s=0) as cluster:
            nodes = (await cluster.get("nodes", what="list nodes", patience_s=0)).content
            nomad = f"Nomad {cluster.version} at {address}" if cluster.version else f"Nomad at {address}"
    except PassingError as error:
        return Finding(name, "missing", error.message, error.hint or "")
    except HermesError as error:
        return Finding(name, "broken", error.message, error.hint or "")
    ready = [node for node in nodes if node["Status"] == "ready" and node["SchedulingEligibility"] == "eligible"]
    able = [node for node in ready if ((node.get("Drivers") or {}).get(driver) or {}).get("Healthy")]
    found = f"{nomad}: {len(ready)} of {len(nodes)} nodes take work, {len(able)} with the driver {driver}"
    if not able:
        return Finding(name, "broken", found, f"enable the driver {driver} on a node: docs/how-to/run-on-nomad.md")
    return Finding(name, "ok", found)

"""A sandbox that the cluster takes away says why, in one line."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.conftest import backend_on, nothing_left
from tests.hermes_backend_nomad.processes import daemon_of
from tests.stand_ins.nomad.fixtures import running_stand_in

from hermes_backend_nomad._sandbox import NomadSandbox
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.docker, pytest.mark.apptainer]

PATIENCE_S = 30.0
ROOM_MB = 300
"""Of a node, so that it has a sandbox or something of a higher priority."""


@pytest.fixture
def anyio_backend(backend_name: str) -> str:
    """One event loop for each backend."""
    return {"nomad": "asyncio", "nomad-singularity": "trio"}[backend_name]


@pytest.fixture(scope="module")
def crowded() -> Iterator[Cluster]:
    """A cluster of one small node."""
    with running_stand_in(docker_allow_caps="+sys_admin", preemption=True, memory=ROOM_MB) as started:
        yield started.cluster


def node_of(cluster: Cluster) -> str:
    """The only node."""
    [node] = cluster.call("GET", "/v1/nodes")
    return str(node["ID"])


def stop(cluster: Cluster, allocation: str) -> None:
    cluster.call("PUT", f"/v1/allocation/{allocation}/stop")


def kill(cluster: Cluster, allocation: str) -> None:
    del cluster
    os.kill(daemon_of(allocation), signal.SIGKILL)


def drain(cluster: Cluster, allocation: str) -> None:
    del allocation
    wish = {"DrainSpec": {"Deadline": 10**9}, "MarkEligible": False}
    cluster.call("PUT", f"/v1/node/{node_of(cluster)}/drain", wish)


def preempt(cluster: Cluster, allocation: str) -> None:
    del allocation
    task = {"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["1000"]}}
    task["Resources"] = {"CPU": 1, "MemoryMB": ROOM_MB}
    group = {"Name": "g", "Count": 1, "Tasks": [task]}
    job = {"ID": "urgent", "Name": "urgent", "Type": "batch", "Priority": 90, "Datacenters": ["dc1"]}
    cluster.register(job | {"TaskGroups": [group]})


def restore(cluster: Cluster) -> None:
    """Have the node take work again."""
    cluster.purge("urgent")
    cluster.call("PUT", f"/v1/node/{node_of(cluster)}/drain", {"DrainSpec": None, "MarkEligible": True})


@pytest.mark.parametrize(
    ("take_away", "why"),
    [
        (stop, "it was stopped"),
        (kill, "Terminated: Exit Code: 137"),
        (drain, "it has to leave its node stand-in-0"),
        (preempt, "it was preempted by a job of higher priority"),
    ],
    ids=["stop", "kill", "drain", "preempt"],
)
async def test_a_sandbox_that_is_gone_says_why(
    take_away: Callable[[Cluster, str], None], why: str, backend_name: str, crowded: Cluster
) -> None:
    with nothing_left(crowded) as witness:
        async with backend_on(crowded.address, witness.job_id, backend_name, {}) as backend:
            sandbox = await backend.start(SandboxSpec(slots=1), "owner", "owner-0")
            assert isinstance(sandbox, NomadSandbox)
            assert sandbox.allocation_id is not None
            try:
                await to_thread.run_sync(take_away, crowded, sandbox.allocation_id)
                with anyio.fail_after(PATIENCE_S):
                    while (said := await sandbox.alive()) is None:  # noqa: ASYNC110 - the pool is who waits for events
                        await anyio.sleep(0.02)
            finally:
                await to_thread.run_sync(restore, crowded)
            assert said.startswith("sandbox owner-0 is gone: ")
            assert why in said
            assert "\n" not in said


async def test_a_machine_that_is_lost(backend_name: str) -> None:
    with running_stand_in(docker_allow_caps="+sys_admin", node_ttl=0.5) as started:
        cluster = started.cluster
        with nothing_left(cluster) as witness:
            async with backend_on(cluster.address, witness.job_id, backend_name, {}) as backend:
                sandbox = await backend.start(SandboxSpec(slots=1), "owner", "owner-0")
                cluster.hook(f"node/{node_of(cluster)}/lose")
                with anyio.fail_after(PATIENCE_S):
                    while (said := await sandbox.alive()) is None:  # noqa: ASYNC110 - as above
                        await anyio.sleep(0.02)
                assert said.startswith("sandbox owner-0 is gone: its node stand-in-0 is lost")

"""A sandbox whose agents are gone is stopped within a pool's patience, and what is left is said, once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.belongings import jobs_of
from tests.hermes_backend_nomad.doors import doors_to

from hermes_backend_nomad._sandbox import NomadSandbox
from hermes_core import Hermes
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots._keeper import STOP_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hermes_backend_nomad.conftest import Backend
    from tests.hermes_backend_nomad.doors import Door
    from tests.stand_ins.nomad.cluster import Cluster as ClusterUnderTest

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker]

HARM = ["shut", "fall_silent"]
KEPT = [pytest.param(False, id="its-own"), pytest.param(True, id="kept")]


@pytest.fixture
def anyio_backend(harm: str) -> str:
    """One event loop for each: they take their time."""
    return {"shut": "asyncio", "fall_silent": "trio"}[harm]


@pytest.fixture
def doors(cluster: ClusterUnderTest) -> Iterator[list[Door]]:
    """Two agents of one cluster."""
    with doors_to(cluster, 2) as doors:
        yield doors


def all_of(doors: list[Door], what: str) -> None:
    """Do something with all of them."""
    for door in doors:
        getattr(door, what)()


def said_of(job_id: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Warnings and errors about a job, and about stopping."""
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for line in loud if job_id in line or "stop" in line]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("harm", HARM)
async def test_what_is_left_is_said_once(
    harm: str,
    kept: bool,
    doors: list[Door],
    make: Callable[..., Backend],
    cluster: ClusterUnderTest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    addresses = [door.url for door in doors]
    async with make(nomad_address=addresses, purge_job_on_shutdown=not kept, lease_ttl_s=300, keep_s=77) as backend:
        sandbox = await backend.start(SandboxSpec(1), "owner", "owner-0")
        assert isinstance(sandbox, NomadSandbox)
        all_of(doors, harm)
        with anyio.move_on_after(STOP_S) as patience:
            await sandbox.stop()
        assert not patience.cancel_called
        [line] = said_of(sandbox.job_id, caplog)
        assert f"the job {sandbox.job_id} is left" in line
        assert f"ends by itself within {77 if kept else 300} s" in line
        assert all(address in line for address in addresses)
        all_of(doors, "shut")
        all_of(doors, "open")
    assert len(said_of(sandbox.job_id, caplog)) == 1
    await to_thread.run_sync(cluster.purge, sandbox.job_id)
    await to_thread.run_sync(cluster.call, "DELETE", f"/v1/var/nomad/jobs/{sandbox.job_id}")


@pytest.mark.parametrize("harm", HARM)
async def test_a_pool_has_nothing_to_add(
    harm: str,
    doors: list[Door],
    make: Callable[..., Backend],
    cluster: ClusterUnderTest,
    job_id: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = make(nomad_address=[door.url for door in doors], lease_ttl_s=5)
    async with Hermes(backend=backend, toolsets=["terminal"]) as hermes, hermes.lease() as slot:
        assert (await slot.exec("echo fine")).stdout == "fine\n"
        all_of(doors, harm)
    [job] = await to_thread.run_sync(jobs_of, cluster, job_id)
    assert len(said_of(job["ID"], caplog)) == 1, caplog.messages
    async with make() as backend:  # by which it is swept, as soon as the lease has run out
        while await to_thread.run_sync(jobs_of, cluster, job_id):
            await backend.cleanup()
            await anyio.sleep(0.5)

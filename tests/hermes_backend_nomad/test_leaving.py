"""Sandboxes that are left to others."""

from __future__ import annotations

from functools import partial
from subprocess import run
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.belongings import jobs_of

from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hermes_backend_nomad.conftest import Backend
    from tests.stand_ins.nomad.cluster import Cluster as ClusterUnderTest

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_whoever_is_cancelled_still_hears_that_sandboxes_end(make: Callable[..., Backend]) -> None:
    backend = make()
    with anyio.CancelScope() as scope:
        async with backend:
            await backend.start(SandboxSpec(1), "owner", "ended")
            scope.cancel()
            await anyio.sleep_forever()
    # Its node did as it was told, and nobody had to wait in vain.
    assert backend.sandboxes == ()
    assert backend.changes.silent.now() == frozenset()


async def test_one_whose_daemon_answers_nothing_is_not_left(
    cluster: ClusterUnderTest, job_id: str, make: Callable[..., Backend]
) -> None:
    async with make(purge_job_on_shutdown=False) as backend:
        await backend.start(SandboxSpec(1), "owner", "frozen")
        [sandbox] = backend.sandboxes
        frozen = ["docker", "pause", f"daemon-{sandbox.allocation_id}"]
        await to_thread.run_sync(partial(run, frozen, check=True, capture_output=True))
        await sandbox.stop()
        assert sandbox.stopped
    assert await to_thread.run_sync(jobs_of, cluster, job_id) == []

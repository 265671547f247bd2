"""What somebody who has only just begun has is taken by nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from trio.testing import MockClock

from hermes_backend_nomad._address import Address
from hermes_backend_nomad._belongings import remove_job, survey, sweep
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._errors import PassingError
from hermes_backend_nomad._holders import Holder
from hermes_backend_nomad._secrets import SandboxSecrets
from hermes_backend_nomad._warm import purge_warm, take_over

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.stand_ins.nomad.cluster import Cluster as ClusterUnderTest

    from hermes_backend_nomad._agent import Answer

pytestmark = [pytest.mark.anyio, pytest.mark.nomad]

KEPT = "the same settings"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Interrupted(Cluster):
    """A cluster on which something happens just before its jobs are listed."""

    before: Callable[[], Awaitable[None]] | None = None

    async def get(self, *path: str, what: str, **options: Any) -> Answer:
        """Let it happen first."""
        if path == ("jobs",) and self.before is not None:
            before, self.before = self.before, None
            await before()
        return await super().get(*path, what=what, **options)


async def register(cluster: Cluster, job_id: str, holder: Holder, **meta: str) -> SandboxSecrets:
    """Have a job, as a sandbox has one."""
    pool = job_id.rpartition("-")[0]
    secrets = await SandboxSecrets.make(f"nomad/jobs/{job_id}", holder.name, tls=False).write(cluster)
    task = {"Name": "daemon", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["600"]}}
    job: dict[str, Any] = {
        **{"ID": job_id, "Name": job_id, "Type": "batch", "Datacenters": ["dc1"]},
        "Meta": {"hermes_pool": pool, "hermes_owner": "somebody", "hermes_holder": holder.name, **meta},
        "TaskGroups": [{"Name": "sandbox", "Tasks": [task | {"LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1}}]}],
    }
    await cluster.put("jobs", what="register a job", content={"Job": job})
    return secrets


class Away(Cluster):
    """A cluster of which no agent answers, for a while."""

    async def put(self, *path: str, what: str, **options: Any) -> Answer:
        """Say when it is asked."""
        raise PassingError(f"{what}: {path}, {options}")


@pytest.mark.parametrize("anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], ids=["trio"])
async def test_a_lease_is_renewed_as_soon_as_the_cluster_answers_again(caplog: pytest.LogCaptureFixture) -> None:
    holder = Holder(Away(Address("http://127.0.0.1:1")), 60)
    caplog.set_level("DEBUG", "hermes_backend_nomad._holders")
    with anyio.move_on_after(30):
        await holder.keep()
    # First in the middle of its time, and from then on before anybody else could sweep.
    assert [record.levelname for record in caplog.records] == ["WARNING", *["DEBUG"] * 14]


async def test_a_run_that_begins_while_another_sweeps_loses_nothing(cluster: ClusterUnderTest, job_id: str) -> None:
    async with Interrupted(Address(cluster.address)) as sweeping:
        begun, sweeper = Holder(sweeping, 60), Holder(sweeping, 60)
        await sweeper.renew()

        async def begin() -> None:
            await begun.renew()
            await register(sweeping, f"{job_id}-begun", begun)

        sweeping.before = begin
        assert await sweep(sweeping, f"{job_id}-", None, sweeper) == []
        await begun.end()
        assert [info.state for info in await sweep(sweeping, f"{job_id}-", None, sweeper)] == ["left behind"]
        await sweeper.end()


async def test_of_two_runs_that_begin_at_once_one_gets_a_warm_sandbox(cluster: ClusterUnderTest, job_id: str) -> None:
    async with Interrupted(Address(cluster.address)) as late:
        first, second = Holder(late, 60), Holder(late, 60)
        nobody = Holder(late, 60)
        warm = f"{job_id}-warm"
        secrets = await register(late, warm, nobody, hermes_kept=KEPT)
        await second.renew()

        async def begin() -> None:
            await first.renew()
            assert await secrets.taken_by(first.name, late) is not None

        late.before = begin
        assert await take_over(late, f"{job_id}-", KEPT, second) is None
        await purge_warm(late, f"{job_id}-", second)
        found = await SandboxSecrets.read(late, f"nomad/jobs/{warm}")
        assert found is not None
        assert found.holder == first.name
        await remove_job(late, warm)
        for holder in (first, second):
            await holder.end()


async def test_a_sandbox_of_ones_own_is_not_taken_over_even_if_the_lease_ran_out(
    cluster: ClusterUnderTest, job_id: str
) -> None:
    async with Cluster(Address(cluster.address)) as late:
        holder = Holder(late, 60)
        await register(late, f"{job_id}-mine", holder, hermes_kept=KEPT)
        assert await take_over(late, f"{job_id}-", KEPT, holder) is None
        await remove_job(late, f"{job_id}-mine")


async def test_what_has_a_longer_name_is_anothers(cluster: ClusterUnderTest, job_id: str) -> None:
    async with Cluster(Address(cluster.address)) as late:
        begun, dead = Holder(late, 60), Holder(late, 60)
        await begun.renew()
        await register(late, f"{job_id}-gpu-warm", dead, hermes_kept=KEPT)
        await purge_warm(late, f"{job_id}-", begun)
        assert await take_over(late, f"{job_id}-", KEPT, begun) is None
        assert [each.job_id for each in await survey(late, f"{job_id}-gpu-")] == [f"{job_id}-gpu-warm"]
        await remove_job(late, f"{job_id}-gpu-warm")
        await begun.end()

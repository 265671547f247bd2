"""Warm sandboxes: a run leaves them for the next one, and two runs never have the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.belongings import jobs_of, wait_until
from tests.hermes_backend_nomad.conftest import DOCKER_BASE

from hermes_core import Hermes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.hermes_backend_nomad.conftest import Backend
    from tests.hermes_backend_nomad.witness import Witness
    from tests.stand_ins.nomad.cluster import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker]

KEPT = {"purge_job_on_shutdown": False, "slots_per_sandbox": 2, "max_sandboxes": 2}


@pytest.fixture
async def _purged(make: Callable[..., Backend]) -> AsyncIterator[None]:
    """Whatever is left warm is ended in the end."""
    yield
    async with make(purge_job_on_start=True):
        pass


async def use(backend: Backend, left_behind: str = "") -> str:
    """Use a slot; return what it saw in its workspace, and the job of its sandbox."""
    async with Hermes(backend=backend, toolsets=["terminal"]) as hermes:
        async with hermes.lease(wait_s=None) as slot:
            seen = await slot.exec(f"ls -A; touch {left_behind or 'nothing'}")
        assert seen.stdout == ""
        [sandbox] = backend.sandboxes
        return sandbox.job_id


@pytest.mark.usefixtures("_purged")
async def test_a_run_takes_over_what_the_one_before_left(
    make: Callable[..., Backend], witness: Witness, cluster: Cluster
) -> None:
    first = await use(make(**KEPT), "secret-of-the-first")
    [job] = await to_thread.run_sync(jobs_of, cluster, witness.job_id)
    assert (job["ID"], job["Status"]) == (first, "running")
    assert await use(make(**KEPT)) == first
    assert witness.jobs == {first}


@pytest.mark.usefixtures("_purged")
async def test_other_settings_need_other_sandboxes(make: Callable[..., Backend]) -> None:
    first = await use(make(**KEPT))
    assert await use(make(**KEPT, memory=300)) != first
    assert await use(make(**KEPT)) == first


@pytest.mark.usefixtures("_purged")
async def test_another_image_by_the_same_name_is_another(make: Callable[..., Backend], witness: Witness) -> None:
    tag = f"{witness.job_id}:local"

    async def docker(*arguments: str, stdin: bytes = b"") -> bytes:
        return (await anyio.run_process(["docker", *arguments], input=stdin)).stdout

    try:
        await docker("tag", DOCKER_BASE, tag)
        first = await use(make(**KEPT, image=tag))
        assert await use(make(**KEPT, image=tag)) == first
        await docker("build", "--tag", tag, "-", stdin=f"FROM {DOCKER_BASE}\nLABEL another=one\n".encode())
        assert await use(make(**KEPT, image=tag)) != first
    finally:
        with anyio.CancelScope(shield=True):
            async with make(purge_job_on_start=True):
                while await docker("ps", "--all", "--quiet", "--filter", f"ancestor={tag}"):  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            await docker("image", "rm", "--force", tag)


@pytest.mark.usefixtures("_purged")
async def test_two_runs_never_have_the_same(make: Callable[..., Backend]) -> None:
    warm = await use(make(**KEPT))
    jobs: list[str] = []

    async def one() -> None:
        backend = make(**KEPT)
        async with Hermes(backend=backend, toolsets=["terminal"]) as hermes, hermes.lease(wait_s=None) as slot:
            assert (await slot.exec("echo mine")).stdout == "mine\n"
            jobs.extend(sandbox.job_id for sandbox in backend.sandboxes)
            with anyio.fail_after(60):
                while len(jobs) < 2:  # noqa: ASYNC110 - the other one is not told of
                    await anyio.sleep(0.05)

    async with anyio.create_task_group() as runs:
        runs.start_soon(one)
        runs.start_soon(one)
    assert len(set(jobs)) == 2
    assert warm in jobs


@pytest.mark.usefixtures("_purged")
async def test_one_that_is_not_clean_is_not_left_to_others(make: Callable[..., Backend], witness: Witness) -> None:
    async with Hermes(backend=make(**KEPT), toolsets=["terminal"]) as hermes:
        slot = await hermes.acquire(wait_s=None)  # and never given back
        await slot.exec("touch mine")
    assert await use(make(**KEPT)) in witness.jobs
    assert len(witness.jobs) == 2


async def test_they_end_by_themselves_when_nobody_comes(
    make: Callable[..., Backend], witness: Witness, cluster: Cluster
) -> None:
    await use(make(**KEPT, keep_s=1))
    await to_thread.run_sync(wait_until, lambda: not witness.in_sandboxes(), "its processes did not end")

    def statuses() -> list[str]:
        return [job["Status"] for job in jobs_of(cluster, witness.job_id)]

    await to_thread.run_sync(wait_until, lambda: statuses() == ["dead"], "the cluster does not know of its end")
    removed = await make().cleanup()
    assert [info.state for info in removed] == ["left behind"]

"""Several agents of one cluster: when one cannot be reached, the next is asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from tests.hermes_backend_nomad.conftest import backend_on
from tests.hermes_backend_nomad.doors import doors_to

from hermes_backend_nomad import NomadConfig
from hermes_backend_nomad._address import find_address
from hermes_backend_nomad._belongings import remove_job
from hermes_backend_nomad._changes import Changes
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._errors import PassingError
from hermes_backend_nomad._secrets import SandboxSecrets
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.hermes_backend_nomad.doors import Door
    from tests.stand_ins.nomad.cluster import Cluster as ClusterUnderTest

    from hermes_backend_nomad._changes import Watch

pytestmark = [pytest.mark.anyio, pytest.mark.nomad]

PATIENCE_S = 30.0


@pytest.fixture
def doors(cluster: ClusterUnderTest) -> Iterator[list[Door]]:
    """Three agents of one cluster."""
    with doors_to(cluster, 3) as doors:
        yield doors


def reached_by(doors: Sequence[Door], **options: Any) -> Cluster:
    """The cluster, by several agents."""
    return Cluster(find_address(NomadConfig(nomad_address=[door.url for door in doors])), **options)


def sleeping(job_id: str) -> dict[str, Any]:
    """A job that does nothing."""
    task = {"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["600"]}}
    task |= {"LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1}, "Resources": {"CPU": 20, "MemoryMB": 20}}
    job = {"ID": job_id, "Name": job_id, "Type": "batch", "Datacenters": ["dc1"]}
    return job | {"TaskGroups": [{"Name": "g", "Count": 1, "Tasks": [task]}]}


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of agents in use."""
    return [line for line in caplog.messages if line.startswith("Nomad is asked at")]


async def test_the_next_is_asked_and_it_is_said_once(doors: list[Door], caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = doors
    with caplog.at_level(logging.INFO, "hermes_backend_nomad"):
        async with reached_by(doors) as cluster:
            assert said(caplog) == [f"Nomad is asked at {first.url}"]
            caplog.clear()
            first.shut()
            for _ in range(3):
                await cluster.get("jobs", what="list jobs")
            [line] = said(caplog)
            assert line.startswith(f"Nomad is asked at {second.url} from now on: no Nomad agent answers at {first.url}")
            caplog.clear()
            second.shut()
            first.open()
            await cluster.get("jobs", what="list jobs")
            [line] = said(caplog)
            assert line.startswith(f"Nomad is asked at {third.url} from now on")


async def test_if_none_answers_all_are_named(doors: list[Door]) -> None:
    for door in doors:
        door.shut()
    with pytest.raises(PassingError) as raised:
        async with reached_by(doors, patience_s=0):
            pass
    assert all(f"no Nomad agent answers at {door.url}: " in raised.value.message for door in doors)
    assert "nomad_address" in str(raised.value.hint)


async def test_what_an_agent_refuses_is_not_asked_of_another(doors: list[Door]) -> None:
    job = sleeping("refused") | {"NodePool": "none-such"}
    async with reached_by(doors) as cluster:
        with pytest.raises(BackendUnavailableError, match="nonexistent node pool") as raised:
            await cluster.put("jobs", what="register a job", content={"Job": job})
        assert [door.url in raised.value.message for door in doors] == [True, False, False]
        assert cluster.agent.address.url == doors[0].url


async def test_a_job_whose_registration_was_not_answered_is_there_once(
    doors: list[Door], cluster: ClusterUnderTest, job_id: str
) -> None:
    name, first = f"{job_id}-once", doors[0]
    async with reached_by(doors) as asked:
        first.swallowed = b"PUT /v1/jobs"
        answer = await asked.put("jobs", what="register a job", content={"Job": sleeping(name)})
        assert first.met == 1
        evaluation = await to_thread.run_sync(cluster.evaluation, answer.content["EvalID"])
        assert not evaluation.get("FailedTGAllocs")
        await to_thread.run_sync(cluster.allocation, name, "running")
        assert len(await to_thread.run_sync(cluster.allocations, name)) == 1
        assert (await asked.get("job", name, what="look at a job")).content["Version"] == 0
        await remove_job(asked, name)


async def test_a_variable_whose_writing_was_not_answered_is_ones_own(doors: list[Door], job_id: str) -> None:
    async with reached_by(doors) as asked:
        doors[0].swallowed = b"PUT /v1/var"
        made = SandboxSecrets.make(f"nomad/jobs/{job_id}-x", "me", tls=False)
        written = await made.write(asked)
        assert doors[0].met == 1
        found = await SandboxSecrets.read(asked, made.path)
        assert found == written
        await remove_job(asked, f"{job_id}-x")


async def test_a_removal_that_was_not_answered(doors: list[Door], job_id: str) -> None:
    async with reached_by(doors) as asked:
        await asked.put("jobs", what="register a job", content={"Job": sleeping(f"{job_id}-x")})
        doors[0].swallowed = b"DELETE /v1/"
        await remove_job(asked, f"{job_id}-x")
        assert doors[0].met == 1
        assert (await asked.get("jobs", what="list jobs", params={"prefix": job_id})).content == []


async def test_a_stream_that_is_refused_is_said_once(
    doors: list[Door], job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    door = doors[0]

    def complaints() -> list[str]:
        return [line for line in caplog.messages if line.startswith("nothing is heard of the cluster")]

    async with reached_by([door]) as cluster, anyio.create_task_group() as tasks:
        await tasks.start(Changes(cluster, job_id).run)
        door.refused = b"/v1/event/stream"
        door.shut()
        door.open()
        with anyio.fail_after(PATIENCE_S):
            while door.met < 4:  # noqa: ASYNC110 - it is met in threads of its own
                await anyio.sleep(0.05)
        assert len(complaints()) == 1
        tasks.cancel_scope.cancel()


async def changed(watch: Watch, *statuses: str) -> None:
    """Wait until its allocation is so."""
    with anyio.fail_after(PATIENCE_S):
        while watch.allocation is None or watch.allocation.status not in statuses:
            await watch.change()


@pytest.mark.parametrize("harm", ["shut", "fall_silent"])
async def test_the_events_come_by_the_next(
    harm: str, doors: list[Door], job_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = doors
    name = f"{job_id}-watched"
    async with reached_by(doors) as asked, anyio.create_task_group() as tasks:
        first.refused = b"/v1/event/stream"
        changes = Changes(asked, f"{job_id}-")
        watch = changes.watch(name)
        await tasks.start(changes.run)
        await asked.put("jobs", what="register a job", content={"Job": sleeping(name)})
        await changed(watch, "running")
        assert asked.agent.address.url == second.url
        getattr(second, harm)()
        await asked.delete("job", name, what="end a job")
        await changed(watch, "complete", "failed")
        await remove_job(asked, name)
        tasks.cancel_scope.cancel()
    assert [line.partition(" from")[0] for line in said(caplog)] == [
        f"Nomad is asked at {door.url}" for door in (second, third)
    ]


async def test_if_none_has_events_it_is_said(doors: list[Door]) -> None:
    async with reached_by(doors) as asked:
        for door in doors:
            door.refused = b"/v1/event/stream"
        with pytest.raises(BackendUnavailableError, match="no Nomad agent answers"):
            await Changes(asked, "none-").run()
        assert [door.met for door in doors] == [1, 1, 1]


@pytest.mark.docker
@pytest.mark.apptainer
async def test_sandboxes_live_on_and_others_are_started_when_the_first_agent_is_gone_for_good(
    doors: list[Door], job_id: str, backend_name: str
) -> None:
    addresses = {"nomad_address": ",".join(door.url for door in doors)}
    async with backend_on("", job_id, backend_name, addresses) as backend:
        before = await backend.start(SandboxSpec(1), "owner", "before")
        doors[0].shut()
        after = await backend.start(SandboxSpec(1), "owner", "after")
        assert [await sandbox.alive() for sandbox in (before, after)] == [None, None]
        await before.stop()
        assert {info.name for info in await backend.list("owner")} == {"after"}

"""What happens to a cluster during a run takes no trajectory away and makes none wrong; the pool recovers."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from tests.conftest import cannot_run
from tests.hermes_backend_nomad.conftest import backend_on, nothing_left
from tests.hermes_backend_nomad.processes import daemon_of
from tests.killed_runs import run_under, run_under_kills
from tests.stand_ins.nomad.fixtures import given_cluster, nomad_binary, running_agent, running_stand_in

from hermes_core import Hermes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from typing import TypeAlias

    from tests.stand_ins.nomad.fixtures import RunningAgent, RunningStandIn

    Agent: TypeAlias = RunningAgent | RunningStandIn

pytestmark = [pytest.mark.anyio, pytest.mark.nomad, pytest.mark.docker, pytest.mark.apptainer]

KILLS = 6
PATIENCE_S = 60.0
FILLER = "filler"
RANDOM = Random(0)
ENOUGH_MB = 200
"""What the filler leaves: less than a sandbox needs."""


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    """An agent that may be killed and drained: nobody else's."""
    if given_cluster() is not None and nomad_binary() is None:
        cannot_run("nomad", "the cluster at NOMAD_ADDR is not disturbed, and there is no program for one of our own")
    with running_agent() if nomad_binary() else running_stand_in(docker_allow_caps="+sys_admin") as started:
        yield started


@pytest.fixture
def anyio_backend(backend_name: str) -> str:
    """One event loop for each backend: what is disturbed is the same under both."""
    return {"nomad": "asyncio", "nomad-singularity": "trio"}[backend_name]


class Disturbed:
    """A run's cluster, and what can be done to it."""

    def __init__(self, agent: Agent, job_id: str) -> None:
        self.agent = agent
        self.cluster = agent.cluster
        self._prefix = f"{job_id}-"

    async def running(self) -> list[dict[str, Any]]:
        wanted = f'JobID matches "^{self._prefix}"'
        found = await to_thread.run_sync(partial(self.cluster.call, "GET", "/v1/allocations", filter=wanted))
        return [each for each in found if (each["ClientStatus"], each["DesiredStatus"]) == ("running", "run")]

    async def stop_one(self, random: Random) -> bool:
        running = await self.running()
        if running:
            allocation = random.choice(running)["ID"]
            await to_thread.run_sync(self.cluster.call, "PUT", f"/v1/allocation/{allocation}/stop")
        return bool(running)

    async def kill_one(self, random: Random) -> bool:
        running = await self.running()
        if running:
            with suppress(ValueError, ProcessLookupError, OSError):  # it is starting, or just gone
                os.kill(await to_thread.run_sync(daemon_of, random.choice(running)["ID"]), signal.SIGKILL)
                return True
        return False

    async def node(self) -> dict[str, Any]:
        [node] = await to_thread.run_sync(self.cluster.call, "GET", "/v1/nodes")
        found: dict[str, Any] = await to_thread.run_sync(self.cluster.call, "GET", f"/v1/node/{node['ID']}")
        return found

    async def drain(self, *, on: bool) -> None:
        wish = {"DrainSpec": {"Deadline": 10**9} if on else None, "MarkEligible": not on}
        await to_thread.run_sync(self.cluster.call, "PUT", f"/v1/node/{(await self.node())['ID']}/drain", wish)

    async def fill(self) -> None:
        room = (await self.node())["NodeResources"]["Memory"]["MemoryMB"]
        found = await to_thread.run_sync(self.cluster.call, "GET", "/v1/allocations")
        taken = sum(256 for each in found if each["ClientStatus"] in ("pending", "running"))
        task = {"Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sleep", "args": ["1000"]}}
        task["Resources"] = {"CPU": 1, "MemoryMB": room - taken - ENOUGH_MB}
        group = {"Name": "g", "Count": 1, "Tasks": [task]}
        job = {"ID": FILLER, "Name": FILLER, "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [group]}
        await to_thread.run_sync(self.cluster.call, "PUT", "/v1/jobs", {"Job": job})

    async def empty(self) -> None:
        await to_thread.run_sync(partial(self.cluster.call, "DELETE", f"/v1/job/{FILLER}", purge="true"))

    async def sandboxes(self, least: int = 1) -> None:
        """Wait until there are some."""
        while len(await self.running()) < least:  # noqa: ASYNC110 - of what others do there are no events
            await anyio.sleep(0.05)


@pytest.fixture
def disturbed(agent: Agent) -> Iterator[tuple[Disturbed, str]]:
    with nothing_left(agent.cluster) as witness:
        try:
            yield Disturbed(agent, witness.job_id), witness.job_id
        finally:
            restore(agent)


def restore(agent: Agent) -> None:
    """Have it take work as before, whatever became of the test: the next one is not to suffer from it."""
    if agent.process is None:
        agent.start()
    agent.cluster.purge(FILLER)
    [node] = agent.cluster.call("GET", "/v1/nodes")
    agent.cluster.call("PUT", f"/v1/node/{node['ID']}/drain", {"DrainSpec": None, "MarkEligible": True})


async def runs_under(
    disturbed: tuple[Disturbed, str],
    backend_name: str,
    out: Path,
    disturb: Callable[[Disturbed], Awaitable[None]],
) -> None:
    """Make runs until the disturbance is over, on sandboxes as the pool makes them."""
    place, job_id = disturbed
    settings = {"slots_per_sandbox": 4, "max_sandboxes": 3, "health_interval_s": 2}
    backend = backend_on(place.cluster.address, job_id, backend_name, settings)
    async with Hermes(backend=backend, toolsets=["terminal"]) as hermes:
        async with hermes.lease(wait_s=PATIENCE_S):
            pass  # on a cluster without room, a run that never had a sandbox ends at once, as it should
        await run_under(hermes, partial(disturb, place), out)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_sandboxes_that_are_stopped_or_killed(
    disturbed: tuple[Disturbed, str], backend_name: str, how: str, tmp_path: Path
) -> None:
    place, job_id = disturbed
    backend = backend_on(place.cluster.address, job_id, backend_name, {"slots_per_sandbox": 4, "max_sandboxes": 3})
    end_one = place.stop_one if how == "stop" else place.kill_one
    async with Hermes(backend=backend, toolsets=["terminal"]) as hermes:
        await run_under_kills(hermes, end_one, tmp_path, kills=KILLS)


async def test_a_node_that_is_drained_and_comes_back(
    disturbed: tuple[Disturbed, str], backend_name: str, tmp_path: Path
) -> None:
    async def drain(place: Disturbed) -> None:
        await place.sandboxes()
        await place.drain(on=True)
        while await place.running():  # noqa: ASYNC110 - of what others do there are no events
            await anyio.sleep(0.05)
        await anyio.sleep(1)
        await place.drain(on=False)

    await runs_under(disturbed, backend_name, tmp_path, drain)


async def test_a_node_that_is_full_for_a_while(
    disturbed: tuple[Disturbed, str], backend_name: str, tmp_path: Path
) -> None:
    async def fill(place: Disturbed) -> None:
        await place.sandboxes()
        await place.fill()
        [allocation, *_] = await place.running()
        await to_thread.run_sync(place.cluster.call, "PUT", f"/v1/allocation/{allocation['ID']}/stop")
        await anyio.sleep(2)
        await place.empty()

    await runs_under(disturbed, backend_name, tmp_path, fill)


async def test_an_agent_that_is_killed_and_started_again(
    disturbed: tuple[Disturbed, str], backend_name: str, tmp_path: Path
) -> None:
    async def restart(place: Disturbed) -> None:
        await place.sandboxes()
        before = {each["ID"] for each in await place.running()}
        place.agent.kill()
        await anyio.sleep(1)
        await to_thread.run_sync(place.agent.start)
        assert before & {each["ID"] for each in await place.running()}  # nothing was lost by it

    await runs_under(disturbed, backend_name, tmp_path, restart)


async def test_what_happens_while_the_event_stream_is_cut_is_caught_up(
    disturbed: tuple[Disturbed, str], backend_name: str, tmp_path: Path
) -> None:
    if not disturbed[0].cluster.supports("cut-streams"):
        pytest.skip("a real agent's stream is cut by its restart, which another test does")

    async def cut(place: Disturbed) -> None:
        await place.sandboxes()
        for _ in range(5):
            await to_thread.run_sync(place.cluster.hook, "cut-streams")
            await place.stop_one(RANDOM)
            await anyio.sleep(0.5)

    await runs_under(disturbed, backend_name, tmp_path, cut)

"""Containers that are killed, processes that are killed, and what is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import to_thread
from click.testing import CliRunner
from docker import errors
from tests.killed_runs import run_under_kills

from hermes_backend_docker._container import LABEL_NAME, LABEL_OWNER, LABEL_PLACE
from hermes_core import Hermes
from hermes_core.cli._main import hermes
from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import SandboxLostError
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from hermes_backend_docker import DockerBackend

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PATIENCE_S = 30.0

RUN = """
import sys, anyio
from hermes_backend_docker import DockerBackend, DockerConfig
from hermes_core.sandbox import SandboxSpec

async def main(image, state, owner):
    async with DockerBackend(DockerConfig(image=image, state_dir=state)) as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        print(sandbox.title, flush=True)
        await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


def containers(client: Any, owner: str | None = None) -> list[dict[str, Any]]:
    label = LABEL_OWNER if owner is None else f"{LABEL_OWNER}={owner}"
    found: list[dict[str, Any]] = client.containers(all=True, filters={"label": [label]})
    return found


def users_of(marker: str) -> list[int]:
    """The users, as this machine knows them, of the processes with a marker in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if marker in (entry / "cmdline").read_text():
                    found.append(int((entry / "status").read_text().partition("Uid:")[2].split()[0]))
            except OSError:
                continue
    return found


async def test_no_two_slots_of_a_machine_are_the_same_user(make: Callable[..., DockerBackend]) -> None:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    async with (
        make() as backend,
        LocalBackend() as local,
        DefaultBatchExecutor() as executor,
        AsyncExitStack() as stack,
    ):
        for each, containers in ((backend, 2), (local, 1)):
            pool = await stack.enter_async_context(DefaultSlotPool(each, PoolConfig(2, containers)))
            for _ in range(2 * containers):
                slot = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
                stack.push_async_callback(slot.release)
                await slot.exec(f"sleep {marker} > /dev/null 2>&1 &")
        await to_thread.run_sync(wait_until, lambda: len(users_of(f"sleep\0{marker}")) == 6)
        assert len(set(users_of(f"sleep\0{marker}"))) == 6


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def leftovers(state: Path) -> list[str]:
    return [name for name in os.listdir(state) if not name.startswith(".")]


async def test_a_container_that_is_killed_during_a_run_is_replaced(
    make: Callable[..., DockerBackend], client: Any, tmp_path: Path, state: Path
) -> None:
    backend = make(slots_per_sandbox=4)
    killed: list[str] = []

    async def kill() -> None:
        while not killed or await to_thread.run_sync(_is_there, client, killed[0]):
            for sandbox in backend.sandboxes:
                if await sandbox.alive() is None and not killed:
                    await anyio.sleep(0.3)
                    killed.append(sandbox.title)
                    await to_thread.run_sync(client.kill, sandbox.title)
            await anyio.sleep(0.02)

    async with Hermes(backend=backend) as hermes, anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        run = await hermes.run(
            "arithmetic", model="oracle", tasks=24, group_size=4, concurrency=8, out=tmp_path / "out"
        )
    assert killed
    assert run.statistics.trajectories == 96
    assert run.statistics.mean_reward == 1.0
    assert not run.statistics.failures
    assert leftovers(state) == []


async def test_nothing_is_lost_when_twenty_containers_are_killed(
    make: Callable[..., DockerBackend], client: Any, tmp_path: Path, state: Path
) -> None:
    networks = len(client.networks())
    backend = make(slots_per_sandbox=4, max_sandboxes=4)
    killed: list[str] = []

    async def kill_one(random: Random) -> bool:
        living = [each for each in backend.sandboxes if await each.alive() is None and each.title not in killed]
        if living:
            killed.append(random.choice(living).title)
            try:
                await to_thread.run_sync(client.kill, killed[-1])
            except errors.APIError:  # the pool was quicker, at the end of a run
                killed.pop()
                return False
        return bool(living)

    async with Hermes(backend=backend) as hermes:
        await run_under_kills(hermes, kill_one, tmp_path)
    assert len(killed) == 20
    assert leftovers(state) == []
    assert not any(_is_there(client, title) for title in killed)
    assert len(client.networks()) == networks
    assert mounts_of(state) == []


def mounts_of(state: Path) -> list[str]:
    """What is mounted on this machine of a state folder, or in it."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(state) in line]


def _is_there(client: Any, title: str) -> bool:
    return bool(client.containers(all=True, filters={"name": title}))


def test_a_run_from_the_command_line(docker_base: str, client: Any, state: Path, tmp_path: Path) -> None:
    settings = ["-B", f"image={docker_base}", "-B", f"state_dir={state}", "-B", "slots_per_sandbox=4"]
    arguments = ["--backend", "docker", *settings, "--model", "oracle", "--tasks", "4", "--group-size", "2"]
    done = CliRunner().invoke(hermes, ["run", "arithmetic", *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert (statistics["trajectories"], statistics["mean_reward"], statistics["failures"]) == (8, 1.0, 0)


async def test_a_killed_container_says_so(make: Callable[..., DockerBackend], client: Any, owner: str) -> None:
    async with make() as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        title = backend.sandboxes[0].title
        await to_thread.run_sync(client.kill, title)
        with anyio.fail_after(PATIENCE_S):
            while (why := await sandbox.alive()) is None:  # noqa: ASYNC110 - of the engine there are no events here
                await anyio.sleep(0.02)
        assert owner in why
        with pytest.raises(SandboxLostError):
            await sandbox.connect()


@pytest.fixture
def killed(docker_base: str, client: Any, state: Path, owner: str) -> str:
    """The container of a process that was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", RUN, docker_base, str(state), owner], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        title = process.stdout.readline().strip()
        assert title
        assert client.inspect_container(title)["State"]["Running"]
        process.send_signal(signal.SIGKILL)
    return title


def test_the_container_of_a_killed_process_ends_and_is_gone(client: Any, killed: str, state: Path, owner: str) -> None:
    wait_until(lambda: not _is_there(client, killed))
    assert leftovers(state) != []
    arguments = ["--backend", "docker", "-B", f"state_dir={state}"]
    listed = json.loads(CliRunner().invoke(hermes, ["sandbox", "list", *arguments, "--json"]).output)
    ours = [row for row in listed if row["owner"] == owner]
    assert [(row["name"], row["state"]) for row in ours] == [(f"{owner}-0", "left behind")]
    cleaned = CliRunner().invoke(hermes, ["sandbox", "cleanup", *arguments])
    assert f"removed {owner}-0 of {owner}" in cleaned.output
    assert leftovers(state) == []
    assert "nothing to remove" in CliRunner().invoke(hermes, ["sandbox", "cleanup", *arguments]).output


async def test_cleaning_up_removes_what_the_dead_left_and_nothing_else(
    make: Callable[..., DockerBackend], docker_base: str, client: Any, owner: str
) -> None:
    async with make() as backend:
        alive, dead, stranger = f"alive-{owner}", f"dead-{owner}", f"stranger-{owner}"
        await backend.start(SandboxSpec(slots=1), alive, f"{alive}-0")
        identity = client.inspect_container(backend.sandboxes[0].title)["Config"]["Labels"][LABEL_PLACE]
        # As of a process of this user that was killed between creating and starting one, and of another machine.
        made = {}
        for somebody, place in ((dead, identity), (stranger, "elsewhere")):
            labels = {LABEL_OWNER: somebody, LABEL_NAME: f"{somebody}-0", LABEL_PLACE: place}
            made[somebody] = client.create_container(docker_base, ["true"], labels=labels)["Id"]
        try:
            other = make()
            states = {info.owner: info.state for info in await other.list()}
            assert states[alive] == "running"
            assert states[dead] == "left behind"
            assert states[stranger] == "starting"
            assert [info.owner for info in await other.cleanup(stranger)] == []
            assert [info.owner for info in await other.cleanup(alive)] == []
            assert [info.owner for info in await other.cleanup(dead)] == [dead]
            assert containers(client, dead) == []
            assert len(containers(client, alive)) == len(containers(client, stranger)) == 1
            assert await backend.sandboxes[0].alive() is None
        finally:
            for container in made.values():
                _remove_if_there(client, container)


def _remove_if_there(client: Any, container: str) -> None:
    if client.containers(all=True, filters={"id": container}):
        client.remove_container(container, force=True)


async def test_the_next_run_removes_what_was_left(
    make: Callable[..., DockerBackend], killed: str, state: Path, client: Any, owner: str
) -> None:
    assert leftovers(state) != []
    async with make() as backend:
        assert leftovers(state) == []
        assert not await backend.list(owner)
    assert not _is_there(client, killed)


async def test_everything_carries_the_name_of_its_owner(
    make: Callable[..., DockerBackend], client: Any, owner: str
) -> None:
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-7")
        [container] = containers(client, owner)
        assert container["Labels"][LABEL_NAME] == f"{owner}-7"
        assert container["Names"][0].startswith(f"/hermes-{owner}-7-")
    assert containers(client, owner) == []


async def test_a_name_cannot_be_had_twice(make: Callable[..., DockerBackend], owner: str) -> None:
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        with pytest.raises(Exception, match="already"):
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert [info.name for info in await backend.list(owner)] == [f"{owner}-0"]

"""Containers live as long as they are wanted, and nothing of them is left afterwards, whoever is killed."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.hermes_backend_singularity.containers import Container, eventually, instances
from tests.killed_runs import run_under_kills
from tests.process_tree import children

from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core import Hermes
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from hermes_core.sandbox import Sandbox
    from hermes_core.testing.contract._remembering import RememberingBackend

pytestmark = [pytest.mark.anyio, pytest.mark.apptainer]

SPEC = SandboxSpec(slots=2)


@pytest.fixture
def owner() -> str:
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def config(root_folder: str, scratch: Path) -> SingularityConfig:
    return SingularityConfig(image=root_folder, scratch_dir=scratch)


@pytest.fixture
def compressed(image: str, scratch: Path) -> SingularityConfig:
    """An image that is read through FUSE, by one more process."""
    return SingularityConfig(image=image, unpack=False, scratch_dir=scratch)


@pytest.fixture
async def backend(config: SingularityConfig) -> AsyncIterator[SingularityBackend]:
    async with SingularityBackend(config) as backend:
        yield backend


async def dead(sandbox: Sandbox) -> None:
    """Wait until a sandbox says that it does not live."""
    with anyio.fail_after(30):
        while await sandbox.alive() is None:  # noqa: ASYNC110
            await anyio.sleep(0.01)


def left_in(scratch: Path) -> list[str]:
    """What is left of containers on disk."""
    return [path.name for path in scratch.glob("hermes-singularity-*/runs/*")]


def mounts(scratch: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(scratch) in line]


async def test_a_container_is_listed_until_it_is_stopped_and_leaves_nothing(
    backend: SingularityBackend, owner: str, scratch: Path
) -> None:
    sandbox = await backend.start(SPEC, owner, "one")
    container = Container.of(sandbox)
    assert [(info.name, info.state) for info in await backend.list(owner)] == [("one", "running")]
    assert (sandbox.name, sandbox.capacity, sandbox.token) == ("one", 2, None)
    assert await sandbox.alive() is None
    assert container.session != os.getsid(0), "Ctrl-C in our terminal reaches it"
    await sandbox.stop()
    await sandbox.stop()
    assert "was stopped" in (await sandbox.alive() or "")
    assert not await backend.list(owner)
    assert not container.processes()
    assert not left_in(scratch)
    assert not mounts(scratch)


@pytest.mark.parametrize("who", ["keeper", "engine", "first", "daemon"])
async def test_whichever_process_is_killed_nothing_is_left(
    who: str, compressed: SingularityConfig, owner: str, scratch: Path
) -> None:
    async with SingularityBackend(compressed) as backend:
        sandbox = await backend.start(SPEC, owner, "one")
        container = Container.of(sandbox)
        assert len(children(container.engine)) == 2, "nothing serves the image through FUSE"
        os.kill(getattr(container, who), signal.SIGKILL)
        await dead(sandbox)
        assert "container of sandbox one" in (await sandbox.alive() or "")
        await sandbox.stop()
        assert not container.processes()
        assert not left_in(scratch)
        assert not mounts(scratch)
        assert not await backend.list(owner)


async def test_an_engine_that_is_killed_is_cleared_away_without_its_owner(
    compressed: SingularityConfig, owner: str, scratch: Path
) -> None:
    async with SingularityBackend(compressed) as backend:
        sandbox = await backend.start(SPEC, owner, "one")
        container = Container.of(sandbox)
        os.kill(container.engine, signal.SIGKILL)
        await eventually(lambda: not container.processes() and not left_in(scratch))
        await dead(sandbox)
        assert await sandbox.alive() == "the container of sandbox one was killed by signal 9"


async def test_a_container_that_hangs_is_ended_by_force(
    compressed: SingularityConfig, owner: str, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SingularityBackend(compressed) as backend:
        sandbox = await backend.start(SPEC, owner, "one")
        container = Container.of(sandbox)
        os.kill(container.daemon, signal.SIGSTOP)
        await sandbox.stop()
        assert not container.processes()
        assert not left_in(scratch)
    assert "is killed" in caplog.text


async def test_a_run_goes_on_when_a_container_is_killed(
    backend: SingularityBackend, scratch: Path, remembering: RememberingBackend
) -> None:
    """One trajectory in each of four slots; both containers die under them, and each is done again elsewhere."""
    pool_config = PoolConfig(slots_per_sandbox=2, max_sandboxes=2)
    done: list[str] = []
    started = lost = 0
    before = instances()

    async with DefaultSlotPool(remembering, pool_config) as pool, DefaultBatchExecutor() as executor:

        async def work(number: int) -> None:
            nonlocal lost

            def on_output(*_: object) -> None:
                nonlocal started
                started += 1

            while True:
                slot = Slot(await pool.lease(LeaseRequest(wait_s=60)), pool, executor, {})
                command = f"echo started; ls -A; echo {number} > mine; sleep 1"
                try:
                    await slot.exec(command, timeout_s=30, on_output=on_output)
                    result = await slot.exec("cat mine")
                except SandboxLostError:
                    lost += 1
                    continue
                finally:
                    await slot.release()
                done.append(result.stdout.strip())
                return

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(work, number)
            await eventually(lambda: started == 4)
            first = [Container.of(sandbox) for sandbox in remembering.sandboxes]
            for container in first:
                os.kill(container.first, signal.SIGKILL)
        assert sorted(done) == ["0", "1", "2", "3"]
        assert lost == 4
        assert len(remembering.sandboxes) == 4
        assert not any(container.processes() for container in first)
        containers = [Container.of(sandbox) for sandbox in remembering.sandboxes[2:]]
    assert not any(container.processes() for container in containers)
    assert left_in(scratch) == mounts(scratch) == []
    assert instances() == before


async def test_nothing_is_lost_when_twenty_containers_are_killed(
    root_folder: str, scratch: Path, tmp_path: Path
) -> None:
    config = SingularityConfig(image=root_folder, scratch_dir=scratch, slots_per_sandbox=4, max_sandboxes=4)
    backend, before = SingularityBackend(config), instances()
    killed: list[Container] = []

    async def kill_one(random: Random) -> bool:
        known = [each.keeper for each in killed]
        living = [each for each in backend.sandboxes if await each.alive() is None and each.pid not in known]
        if living:
            try:
                container = Container.of(random.choice(living))
            except (StopIteration, ValueError, IndexError, OSError):
                return False  # it only begins, or ends
            os.kill(random.choice([container.engine, container.first, container.daemon]), signal.SIGKILL)
            killed.append(container)
        return bool(living)

    async with Hermes(backend=backend) as hermes:
        await run_under_kills(hermes, kill_one, tmp_path)
    assert len(killed) == 20
    assert not any(container.processes() for container in killed)
    assert left_in(scratch) == mounts(scratch) == []
    assert instances() == before


@pytest.fixture
def remembering(backend: SingularityBackend) -> RememberingBackend:
    from hermes_core.testing.contract._remembering import RememberingBackend

    return RememberingBackend(backend)


SCRIPT = """
import anyio, sys
from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core.sandbox import SandboxSpec

async def main():
    async with SingularityBackend(SingularityConfig(image=sys.argv[1], scratch_dir=sys.argv[2])) as backend:
        sandbox = await backend.start(SandboxSpec(slots=2), sys.argv[3], "theirs")
        print(sandbox.pid, flush=True)
        await anyio.sleep(1000)

anyio.run(main)
"""


def start_owner(config: SingularityConfig, owner: str) -> tuple[subprocess.Popen[str], int]:
    """Start a process that has a container; return it, and the process that keeps the container."""
    command = [sys.executable, "-c", SCRIPT, str(config.image), str(config.scratch_dir), owner]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


async def test_nothing_outlives_an_owner_that_is_killed(config: SingularityConfig, owner: str, scratch: Path) -> None:
    child, keeper = await anyio.to_thread.run_sync(start_owner, config, owner)
    session = os.getsid(keeper)
    looking = SingularityBackend(config)  # never entered
    assert [info.state for info in await looking.list(owner)] == ["running"]
    end(child)
    await eventually(lambda: not _in_session(session))
    assert not await looking.list(owner)
    assert left_in(scratch) == []


async def test_cleanup_ends_what_dead_owners_left_and_nothing_else(config: SingularityConfig, owner: str) -> None:
    child, keeper = await anyio.to_thread.run_sync(start_owner, config, owner)
    session = os.getsid(keeper)
    async with SingularityBackend(config) as backend:
        sandbox = await backend.start(SPEC, owner, "ours")
        for pid in _in_session(session):
            os.kill(pid, signal.SIGSTOP)  # nothing of it can end by itself
        end(child)
        looking = SingularityBackend(config)  # never entered
        assert {info.name: info.state for info in await looking.list(owner)} == {
            "ours": "running",
            "theirs": "left behind",
        }
        assert not await looking.cleanup(f"{owner}x")
        assert [info.name for info in await looking.cleanup(owner)] == ["theirs"]
        assert not await looking.cleanup(owner)
        await eventually(lambda: not _in_session(session))
        assert [(info.name, info.state) for info in await looking.list(owner)] == [("ours", "running")]
        assert await sandbox.alive() is None


async def test_what_is_left_is_swept_when_a_backend_is_entered(config: SingularityConfig, owner: str) -> None:
    child, keeper = await anyio.to_thread.run_sync(start_owner, config, owner)
    session = os.getsid(keeper)
    os.kill(keeper, signal.SIGKILL)
    end(child)
    looking = SingularityBackend(config)
    assert [info.state for info in await looking.list(owner)] == ["left behind"]
    async with SingularityBackend(config) as backend:
        assert not await backend.list(owner)
    await eventually(lambda: not _in_session(session))  # what was killed is reaped by others


def _in_session(session: int) -> list[int]:
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if os.getsid(pid) == session:
                found.append(pid)
        except OSError:
            continue
    return found


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    backend = SingularityBackend(SingularityConfig(scratch_dir=tmp_path / "none", executable="/no/apptainer"))
    assert not await backend.list()
    assert not await backend.cleanup()
    assert not (tmp_path / "none").exists()


async def test_slots_may_read_what_is_bound_and_nothing_else_of_this_machine(
    root_folder: str, scratch: Path, tmp_path: Path, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "model").write_text("weights")
    secret = Path.home() / f"secret-{uuid.uuid4().hex[:8]}"
    secret.write_text("secret")
    for name in ("APPTAINER_BIND", "APPTAINER_BINDPATH", "SINGULARITY_BIND"):
        monkeypatch.setenv(name, f"{Path.home()}:/srv")
    monkeypatch.setenv("APPTAINERENV_PLANTED", "secret")
    config = SingularityConfig(image=root_folder, scratch_dir=scratch, binds=(f"{data}:/models", "/usr/include"))
    try:
        async with (
            SingularityBackend(config) as backend,
            DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool,
            DefaultBatchExecutor() as executor,
        ):
            slot = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
            assert (await slot.exec("cat /models/model")).stdout == "weights"
            assert (await slot.exec("ls /usr/include")).stdout.split() == sorted(os.listdir("/usr/include"))
            assert (await slot.exec("echo x > /models/model")).exit_code != 0
            assert (await slot.exec("echo x > /models/other")).exit_code != 0
            seen = await slot.exec(
                f"cat {secret} /srv/*; env; ls -A /srv {Path.home()} /run; find / -name '{secret.name}'"
            )
            assert "secret" not in seen.stdout
            assert (data / "model").read_text() == "weights"
    finally:
        secret.unlink()


async def test_gpus_are_handed_on(root_folder: str, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as it can be seen without one: the engine's option is taken, and slots know which they may use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    config = SingularityConfig(image=root_folder, scratch_dir=scratch, nv=True)
    assert SingularityBackend(config).capabilities.gpu
    async with (
        SingularityBackend(config) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        slot = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
        seen = await slot.exec(
            "echo $CUDA_VISIBLE_DEVICES $LD_LIBRARY_PATH; ls -d $LD_LIBRARY_PATH /dev/nvidia* 2>/dev/null"
        )
        devices = sorted(glob.glob("/dev/nvidia*"))
        assert seen.stdout.split() == ["1,3", "/.singularity.d/libs", "/.singularity.d/libs", *devices]


async def test_a_bind_of_nothing_is_one_line(root_folder: str, scratch: Path) -> None:
    config = SingularityConfig(image=root_folder, scratch_dir=scratch, binds=("/no/such/folder:/models",))
    async with SingularityBackend(config) as backend:
        with pytest.raises(BackendUnavailableError, match="mount source /no/such/folder doesn't exist"):
            await backend.start(SPEC, "owner", "one")


async def test_a_scratch_folder_may_have_a_long_path(root_folder: str, scratch: Path, owner: str) -> None:
    deep = scratch / ("x" * 120)
    async with SingularityBackend(SingularityConfig(image=root_folder, scratch_dir=deep)) as backend:
        sandbox = await backend.start(SPEC, owner, "one")
        stream = await sandbox.connect()
        await stream.aclose()


async def test_one_slot_may_go_without_isolation(root_folder: str, scratch: Path) -> None:
    config = SingularityConfig(image=root_folder, scratch_dir=scratch, isolation="none")
    async with (
        SingularityBackend(config) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        slot = Slot(await pool.lease(LeaseRequest(network="host")), pool, executor, {})
        assert slot.isolation == "none"
        assert (await slot.exec("echo x > file && cat file")).stdout == "x\n"
        assert shutil.which("apptainer") is not None
        assert (await slot.exec("apptainer --version")).exit_code == 127, "the container shows this machine"

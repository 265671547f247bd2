from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from pydantic import ValidationError

from hermes_core.default_plugins.local_backend import LocalBackend, LocalConfig
from hermes_core.default_plugins.local_backend._state import state_root
from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig
from hermes_sandboxd import STATE_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hermes_core.conftest import OpenRig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
def owner() -> str:
    return f"test-{os.getpid()}-{uuid.uuid4().hex[:6]}"


def lives(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def refusing_bubblewrap(tmp_path: Path) -> Path:
    path = tmp_path / "bwrap"
    path.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def closed_folder() -> Iterator[Path]:
    # Not below pytest's folder, whose path may be too long for sockets.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o700)
        yield Path(folder)


@pytest.fixture
def own_state() -> Iterator[LocalConfig]:
    """A state folder apart, in which no daemon of another test looks for what is left behind."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o711)  # the users of slots pass
        yield LocalConfig(state_dir=Path(folder))


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)
    return tmp_path


def test_settings_are_checked() -> None:
    assert LocalConfig().slots_per_sandbox == 16
    for wrong in ({"slots_per_sandbox": 0}, {"slot_per_sandbox": 4}):
        with pytest.raises(ValidationError):
            LocalConfig.model_validate(wrong)
    assert LocalBackend.name == "local"


async def test_a_sandbox_is_listed_until_it_is_stopped_and_leaves_nothing(owner: str) -> None:
    async with LocalBackend() as backend:
        sandbox = await backend.start(SandboxSpec(slots=3), owner, "one")
        assert [(info.name, info.state) for info in await backend.list(owner)] == [("one", "running")]
        assert (sandbox.name, sandbox.capacity, sandbox.token) == ("one", 3, None)
        assert await sandbox.alive() is None
        (pid,) = (known.pid for known in backend.sandboxes)
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0)  # Ctrl-C in our terminal does not reach it
        await sandbox.stop()
        await sandbox.stop()
        assert "was stopped" in (await sandbox.alive() or "")
        with pytest.raises(FileNotFoundError):
            await sandbox.connect()
        assert not await backend.list(owner)
        assert not lives(pid)


async def test_leaving_the_backend_stops_every_sandbox(owner: str) -> None:
    async with LocalBackend() as backend:
        for name in ("one", "two"):
            await backend.start(SandboxSpec(slots=1), owner, name)
        pids = [sandbox.pid for sandbox in backend.sandboxes]
    assert not await backend.list(owner)
    assert not any(lives(pid) for pid in pids)


async def test_a_cancelled_start_leaves_nothing(owner: str) -> None:
    async with LocalBackend() as backend:
        for number, delay_s in enumerate((0.0, 0.001, 0.005, 0.02, 0.05, 0.1)):
            with anyio.move_on_after(delay_s):
                await backend.start(SandboxSpec(slots=1), owner, str(number))
        for sandbox in backend.sandboxes:
            await sandbox.stop()
        assert not await backend.list(owner)


async def test_a_daemon_that_dies_says_how(owner: str) -> None:
    async with LocalBackend() as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), owner, "one")
        (pid,) = (known.pid for known in backend.sandboxes)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(30):
            while await sandbox.alive() is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert await sandbox.alive() == "the daemon of sandbox one was killed by signal 9"


async def test_a_missing_bubblewrap_is_one_line_with_a_hint() -> None:
    with pytest.raises(BackendUnavailableError, match="/no/bwrap cannot be run") as raised:
        await LocalBackend(LocalConfig(bubblewrap=Path("/no/bwrap"))).__aenter__()
    assert "bubblewrap" in (raised.value.hint or "")


async def test_namespaces_that_are_refused_are_one_line_with_a_hint(refusing_bubblewrap: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="No permissions to create new namespace") as raised:
        await LocalBackend(LocalConfig(bubblewrap=refusing_bubblewrap)).__aenter__()
    assert raised.value.hint


async def test_a_state_folder_that_others_can_write_is_refused(open_folder: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="state folder"):
        await LocalBackend(LocalConfig(state_dir=open_folder)).__aenter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only slots of root have users of their own")
async def test_a_state_folder_that_slots_cannot_reach_is_refused(closed_folder: Path, owner: str) -> None:
    async with LocalBackend(LocalConfig(state_dir=closed_folder / "state")) as backend:
        with pytest.raises(BackendUnavailableError, match="slots run as users of their own"):
            await backend.start(SandboxSpec(slots=1), owner, "one")


async def test_a_state_folder_with_too_long_a_path_is_refused(tmp_path: Path, owner: str) -> None:
    async with LocalBackend(LocalConfig(state_dir=tmp_path / ("x" * 100))) as backend:
        with pytest.raises(ConfigError, match="too long"):
            await backend.start(SandboxSpec(slots=1), owner, "one")


async def test_what_is_left_of_the_killed_is_swept_and_what_lives_is_not(own_state: LocalConfig, owner: str) -> None:
    async with LocalBackend(own_state) as backend:
        await backend.start(SandboxSpec(slots=1), owner, "alive")
        left = await anyio.to_thread.run_sync(plant_remains, own_state, f"{owner}~dead")
        os.utime(left[1].with_name(f"{owner}~alive.sock"), (0, 0))
        async with LocalBackend(own_state):
            pass
        assert [path for path in left if path.exists()] == []
        assert [info.name for info in await backend.list(owner)] == ["alive"]


async def test_cleanup_removes_what_nobody_holds_and_leaves_what_lives(own_state: LocalConfig, owner: str) -> None:
    earlier, listener = await anyio.to_thread.run_sync(plant_remains, own_state, f"{owner}~earlier")
    listener.unlink()
    (earlier / STATE_LOCK).touch()
    async with LocalBackend(own_state) as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), owner, "alive")
        with anyio.fail_after(20):
            while earlier.exists():  # noqa: ASYNC110  # the daemon looks about once, and then no more
                await anyio.sleep(0.01)
        left = await anyio.to_thread.run_sync(plant_remains, own_state, f"{owner}~dead")
        (left[0] / STATE_LOCK).touch()
        (left[0] / "work").mkdir(0o000)
        other = LocalBackend(own_state)  # never entered
        states = {info.name: info.state for info in await other.list(owner)}
        assert states == {"alive": "running", "dead": "left behind"}
        assert not await other.cleanup(f"{owner}x")
        assert [info.name for info in await other.cleanup(owner)] == ["dead"]
        assert not any(path.exists() for path in left)
        assert await other.cleanup(owner) == []
        assert [(info.name, info.state) for info in await other.list(owner)] == [("alive", "running")]
        assert await sandbox.alive() is None


async def test_what_may_be_starting_is_not_left_behind(own_state: LocalConfig, owner: str) -> None:
    folder = state_root(own_state.state_dir) / f"{owner}~young"
    folder.mkdir()
    backend = LocalBackend(own_state)
    assert [info.state for info in await backend.list(owner)] == ["starting"]
    assert await backend.cleanup(owner) == []
    assert folder.exists()


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    backend = LocalBackend(LocalConfig(state_dir=tmp_path / "state", bubblewrap=Path("/no/bwrap")))
    assert not await backend.list()
    assert not await backend.cleanup()
    assert not (tmp_path / "state").exists()


async def test_a_state_folder_that_others_can_write_is_not_cleaned_up(open_folder: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="state folder"):
        await LocalBackend(LocalConfig(state_dir=open_folder)).cleanup()


def plant_remains(config: LocalConfig, name: str) -> list[Path]:
    folder = state_root(config.state_dir) / name
    path = folder.with_name(f"{name}.sock")
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    for left in (folder, path):
        os.utime(left, (0, 0))
    return [folder, path]


SCRIPT = """
import anyio, sys
from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

async def main():
    async with LocalBackend() as backend, DefaultSlotPool(backend, PoolConfig()) as pool:
        slot = Slot(await pool.lease(LeaseRequest()), pool, DefaultBatchExecutor(), {})
        print(pool.owner, (await slot.exec("id -u")).stdout.strip(), flush=True)
        if len(sys.argv) > 1:
            await slot.exec(sys.argv[1], timeout_s=60)

anyio.run(main)
"""


async def test_nothing_outlives_an_owner_that_is_killed(rig: OpenRig) -> None:
    async with rig() as r:
        child = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", SCRIPT, r.sleep], stdout=subprocess.PIPE, text=True, env=_importing()
        )
        assert child.stdout is not None
        owner = child.stdout.readline().split()[0]
        await r.hanging()
        assert await r.backend.list(owner)
        child.kill()
        child.wait()
        child.stdout.close()
        await r.quiet()
        with anyio.fail_after(10):
            while await r.backend.list(owner):  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_a_secret_of_the_host_is_out_of_reach(rig: OpenRig, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = uuid.uuid4().hex
    monkeypatch.setenv("HERMES_PLANTED", secret)
    planted = Path.home() / f".planted-{secret[:8]}"
    planted.write_text(secret)
    try:
        async with rig() as r:
            slot, other = await r.lease(), await r.lease()
            await other.write_file("theirs", secret)
            await other.write_file("/tmp/theirs", secret)
            await other.exec(f"sleep {r.marker} >/dev/null 2>&1 &")
            looks = [
                "env",
                f"cat {planted}",
                f"cat {Path.home()}/.planted*; ls -a {Path.home()} /root /home",
                "cat /proc/[0-9]*/environ | tr '\\0' '\\n'",
                "find / -xdev -name theirs 2>/dev/null",
                "find / -xdev -type f -not -path '/proc/*' -newermt '-10 minutes' 2>/dev/null | xargs cat 2>/dev/null",
            ]
            for look in looks:
                done = await slot.exec(look)
                assert secret not in done.stdout + done.stderr
                assert "theirs" not in done.stdout
            assert r.marker not in (await slot.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout
            assert (await slot.exec("cat /proc/net/dev | grep -vc 'lo:'")).stdout == "2\n"
    finally:
        planted.unlink()


async def test_the_network_is_the_hosts_only_when_asked_for(rig: OpenRig) -> None:
    async with rig() as r:
        alone, shared = await r.lease(), await r.lease(network="host")
        assert (await alone.exec("sed 1,2d /proc/net/dev | cut -d: -f1")).stdout.split() == ["lo"]
        # Interfaces come and go on a machine with containers.
        assert (await shared.exec("readlink /proc/self/ns/net")).stdout.strip() == os.readlink("/proc/self/ns/net")
        assert (alone.network, shared.network) == ("none", "host")


def _importing() -> dict[str, str]:
    """An environment in which a child imports what we import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


async def test_less_isolation_than_required_is_refused_at_once() -> None:
    with pytest.raises(BackendUnavailableError, match="'namespaces' is required") as raised:
        await LocalBackend(LocalConfig(isolation="none", require_isolation="namespaces")).__aenter__()
    assert "doctor" in (raised.value.hint or "")


async def test_a_pool_takes_no_sandbox_with_less_isolation_than_required() -> None:
    config = PoolConfig(slots_per_sandbox=1, require_isolation="namespaces")
    async with LocalBackend(LocalConfig(isolation="none")) as backend, DefaultSlotPool(backend, config) as slot_pool:
        with pytest.raises(BackendUnavailableError, match="'namespaces' is required"):
            await slot_pool.lease(LeaseRequest(network="host", wait_s=20))
        assert slot_pool.status().sandboxes == 0

"""Daemons, connections and processes that are killed, and what is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from click.testing import CliRunner
from tests.process_tree import children

from hermes_backend_ssh import _sandbox
from hermes_core import Hermes
from hermes_core.cli._main import hermes
from hermes_core.exceptions import SandboxLostError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_backend_ssh import SshBackend

pytestmark = [pytest.mark.anyio, pytest.mark.ssh]

PATIENCE_S = 60.0

RUN = """
import sys, anyio
from hermes_backend_ssh import SshBackend, SshConfig
from hermes_core import Hermes

async def main(config):
    backend = SshBackend(SshConfig.model_validate_json(config))
    async with Hermes(backend=backend) as hermes, hermes.lease() as slot:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slot.exec, "sleep 4242.71")
            print(backend.sandboxes[0].pid, flush=True)
            await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


async def until_dead(sandbox: _sandbox.SshSandbox) -> str:
    with anyio.fail_after(PATIENCE_S):
        while (why := await sandbox.alive()) is None:  # noqa: ASYNC110 - nobody tells of it
            await anyio.sleep(0.02)
    return why


def sandboxes(there: Path) -> list[str]:
    folder = there / "sandboxes"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


async def test_a_daemon_that_is_killed_during_a_run_is_replaced(
    make: Callable[..., SshBackend], tmp_path: Path, there: Path
) -> None:
    backend = make(slots_per_sandbox=4)
    run = await run_and_kill(backend, tmp_path, lambda: backend.sandboxes[0].pid)
    assert sandboxes(there) == []
    assert run == (96, 1.0, 0)


async def test_a_connection_that_is_killed_during_a_run_is_replaced(
    make: Callable[..., SshBackend], tmp_path: Path, there: Path
) -> None:
    backend = make(slots_per_sandbox=4)

    def master() -> int | None:
        return None if backend.connection is None or not backend.sandboxes else backend.connection.pid

    run = await run_and_kill(backend, tmp_path, master)
    wait_until(lambda: sandboxes(there) == [])
    assert run == (96, 1.0, 0)


async def run_and_kill(
    backend: SshBackend, folder: Path, victim: Callable[[], int | None]
) -> tuple[int, float | None, int]:
    """Run, and kill one process when slots are in use; return what came of it."""
    killed: list[int] = []

    async def kill() -> None:
        while not killed:
            if backend.sandboxes and (pid := victim()) is not None:
                await anyio.sleep(0.3)
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
            await anyio.sleep(0.02)

    async with Hermes(backend=backend) as hermes, anyio.create_task_group() as tasks:
        tasks.start_soon(kill)
        run = await hermes.run("arithmetic", model="oracle", tasks=24, group_size=4, concurrency=8, out=folder / "out")
    assert killed
    return run.statistics.trajectories, run.statistics.mean_reward, run.statistics.failures


async def test_a_killed_daemon_says_so_and_leaves_nothing(
    make: Callable[..., SshBackend], owner: str, there: Path
) -> None:
    async with make() as backend:
        sandbox = await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        [known] = backend.sandboxes
        assert known.pid is not None
        os.kill(known.pid, signal.SIGKILL)
        assert await until_dead(known) == f"the daemon of sandbox {owner}-0 was killed"
        with pytest.raises(SandboxLostError):
            await sandbox.connect()
        assert sandboxes(there) == []


async def test_a_killed_connection_takes_its_sandboxes_along_and_another_is_made(
    make: Callable[..., SshBackend], owner: str, there: Path
) -> None:
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        [known] = backend.sandboxes
        assert backend.connection is not None
        assert backend.connection.pid is not None
        assert known.pid is not None
        os.kill(backend.connection.pid, signal.SIGKILL)
        # A process that is killed closes what it has open before it is dead, so that its sessions may end first.
        assert known.name in await until_dead(known)
        wait_until(lambda: sandboxes(there) == [] and not is_there(known.pid or 0))
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-1")
        assert [info.name for info in await backend.list(owner)] == [f"{owner}-1"]


async def test_a_daemon_that_hears_nothing_ends(
    make: Callable[..., SshBackend], owner: str, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sandbox, "SILENCE_S", 3.0)
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        [known] = backend.sandboxes
        assert known.pid is not None
        assert backend.connection is not None
        assert backend.connection.pid is not None
        # As if the network were gone: nothing is sent any more, and nothing says so.
        os.kill(backend.connection.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: sandboxes(there) == [] and not is_there(known.pid or 0))
            assert await known.alive() is None
        finally:
            os.kill(backend.connection.pid, signal.SIGCONT)
        assert await until_dead(known)


async def test_more_sandboxes_than_a_connection_has_sessions(make: Callable[..., SshBackend]) -> None:
    backend = make(slots_per_sandbox=1, max_sandboxes=7)
    async with Hermes(backend=backend) as hermes, anyio.create_task_group() as tasks:
        slots = [await hermes.acquire() for _ in range(7)]
        assert len(backend.sandboxes) == 7
        for slot in slots:
            tasks.start_soon(slot.exec, "true")
    assert not backend.sandboxes


def test_nothing_is_left_there_of_a_process_that_is_killed(make: Callable[..., SshBackend], there: Path) -> None:
    config = make().config.model_dump_json(exclude_none=True)
    with subprocess.Popen([sys.executable, "-c", RUN, config], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        wait_until(lambda: bool(processes_with("4242.71")))
        assert len(sandboxes(there)) == 2
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: sandboxes(there) == [] and not is_there(pid))
    wait_until(lambda: not processes_with("4242.71") and not processes_with(str(there)))


def processes_with(text: str) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        try:
            if entry.name.isdigit() and text.encode() in Path(entry.path, "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.fixture
def abandoned(make: Callable[..., SshBackend], there: Path) -> str:
    """The owner of a sandbox all of whose processes were killed at once, as when a machine loses power."""
    config = make().config.model_dump_json(exclude_none=True)
    with subprocess.Popen([sys.executable, "-c", RUN, config], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        [zygote] = children(pid)
        os.kill(zygote, signal.SIGSTOP)
        for victim in (pid, zygote):
            os.kill(victim, signal.SIGKILL)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_there(pid))
    [folder, socket] = sandboxes(there)
    assert socket == f"{folder}.sock"
    return folder.partition("~")[0]


def test_what_is_left_is_listed_and_removed(make: Callable[..., SshBackend], abandoned: str, there: Path) -> None:
    config = make().config.model_dump(mode="json", exclude_none=True)
    arguments = ["--backend", "ssh"]
    for name in ("host", "port", "user", "key", "known_hosts", "remote_dir"):
        arguments += ["-B", f"{name}={config[name]}"]
    listed = json.loads(CliRunner().invoke(hermes, ["sandbox", "list", *arguments, "--json"]).output)
    assert [(row["owner"], row["state"]) for row in listed] == [(abandoned, "left behind")]
    cleaned = CliRunner().invoke(hermes, ["sandbox", "cleanup", *arguments])
    assert f"of {abandoned}" in cleaned.output
    assert sandboxes(there) == []
    assert "nothing to remove" in CliRunner().invoke(hermes, ["sandbox", "cleanup", *arguments]).output


async def test_the_next_run_removes_what_was_left(
    make: Callable[..., SshBackend], abandoned: str, there: Path, owner: str
) -> None:
    async with make():
        assert sandboxes(there) == []
    assert abandoned


async def test_cleaning_up_spares_what_lives_and_what_is_not_ours(
    make: Callable[..., SshBackend], owner: str, there: Path, ordinary: str
) -> None:
    sandboxes_there = there / "sandboxes"
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        for name in ("somebody's folder", "dead~dead-0", "young~young-0"):
            os.mkdir(sandboxes_there / name)
            if "~" in name:
                shutil.chown(sandboxes_there / name, ordinary)
        os.utime(sandboxes_there / "dead~dead-0", (0, 0))
        try:
            other = make()
            states = {info.owner: info.state for info in await other.list()}
            assert states == {owner: "running", "dead": "left behind", "young": "starting"}
            assert await other.cleanup(owner) == []
            assert [info.name for info in await other.cleanup()] == ["dead-0"]
            assert await backend.sandboxes[0].alive() is None
            left = {"somebody's folder", "young~young-0", f"{owner}~{owner}-0", f"{owner}~{owner}-0.sock"}
            assert set(sandboxes(there)) == left
        finally:
            for name in ("somebody's folder", "young~young-0"):
                os.rmdir(sandboxes_there / name)


async def test_a_name_cannot_be_had_twice(make: Callable[..., SshBackend], owner: str) -> None:
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        with pytest.raises(Exception, match="in use"):
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert [info.name for info in await backend.list(owner)] == [f"{owner}-0"]
        assert await backend.sandboxes[0].alive() is None

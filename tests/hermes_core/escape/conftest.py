"""Attackers in real slots, and what they are not to reach."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from tests.hermes_core.conftest import process_with, processes_with

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import SlotDeadError
from hermes_core.execution import DefaultBatchExecutor, ExecutorConfig, Slot
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from hermes_core.execution import ExecResult
    from hermes_core.sandbox import NetworkPolicy

PRELUDE = (Path(__file__).parent / "prelude.py").read_text()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The event loop makes no difference to who is inside; one is enough."""
    return "asyncio"


@dataclass
class Attacker:
    """What an agent can do in its slot."""

    slot: Slot

    async def sh(self, command: str, timeout_s: float = 20.0) -> ExecResult:
        return await self.slot.exec(command, timeout_s=timeout_s)

    async def python(self, source: str, timeout_s: float = 20.0) -> ExecResult:
        """Run Python after `prelude.py`, with the system's interpreter."""
        return await self.slot.exec(["/usr/bin/python3", "-c", PRELUDE + source], timeout_s=timeout_s)

    async def outcomes(self, source: str, timeout_s: float = 20.0) -> dict[str, str]:
        """Run Python that makes attempts; return what came of each: the name of an error, or `success`."""
        done = await self.python(source, timeout_s)
        assert done.exit_code == 0, done
        return dict(line.split(": ", 1) for line in done.stdout.splitlines())

    async def fails(self, source: str) -> None:
        """Every attempt that the Python makes must fail, and there must be one."""
        outcomes = await self.outcomes(source)
        assert outcomes
        assert not [name for name, outcome in outcomes.items() if outcome.startswith("success")], outcomes


@dataclass
class Field:
    """A pool of two slots, one to attack from and one to attack."""

    pool: DefaultSlotPool
    executor: DefaultBatchExecutor

    async def lease(self, network: NetworkPolicy = "none") -> Slot:
        request = LeaseRequest(network=network, env={}, trajectory_id=None, wait_s=20.0)
        return Slot(await self.pool.lease(request), self.pool, self.executor, {})

    async def attacker(self, network: NetworkPolicy = "none") -> Attacker:
        return Attacker(await self.lease(network))

    async def leave(self, attacker: Attacker) -> None:
        """Whatever was tried: the slot still works or died of it, and the next lease finds it clean."""
        with anyio.fail_after(60):
            try:
                assert (await attacker.slot.exec("echo usable")).exit_code in (0, 126)
            except SlotDeadError:
                pass
            await attacker.slot.release()
        assert self.pool.status().resetting == 0
        slot = await self.lease()
        with anyio.fail_after(20):
            assert (await slot.exec("echo usable; ls -A . ~ /tmp /dev/shm | grep -v :$")).stdout.split() == ["usable"]
            await slot.release()


@pytest.fixture(scope="module")
async def field(secret: Secret) -> AsyncIterator[Field]:
    """Shared by the attempts of a module, so that each has the leftovers of all before it to fear."""
    backend = LocalBackend()
    os.environ["HERMES_ESCAPE_SECRET"] = secret.text
    async with backend, DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=2, max_sandboxes=1)) as pool:
        async with DefaultBatchExecutor(ExecutorConfig()) as executor:
            yield Field(pool, executor)
    del os.environ["HERMES_ESCAPE_SECRET"]
    assert not await backend.list(pool.owner)
    assert not processes_with(pool.owner)


@pytest.fixture
async def attacker(field: Field) -> AsyncIterator[Attacker]:
    """One slot; afterwards it must be usable or replaced."""
    attacker = await field.attacker()
    yield attacker
    await field.leave(attacker)


@pytest.fixture
async def victim(field: Field) -> AsyncIterator[Attacker]:
    """Another slot, which nothing may happen to."""
    victim = await field.attacker()
    yield victim
    assert (await victim.sh("echo unharmed")).stdout == "unharmed\n"
    await victim.slot.release()


@dataclass(frozen=True)
class Secret:
    """A file of the host that everybody may read, as far as permissions go."""

    text: str
    path: Path


@pytest.fixture(scope="module")
def secret() -> Iterator[Secret]:
    folder = Path(tempfile.mkdtemp(prefix="hermes-escape-"))
    folder.chmod(0o755)
    found = Secret(f"secret{uuid.uuid4().hex}", folder / "secret")
    found.path.write_text(found.text)
    found.path.chmod(0o666)
    yield found
    assert found.path.read_text() == found.text
    shutil.rmtree(folder)


class Outsider:
    """A process of the host with the same user as the slot's: only the namespaces protect it."""

    def __init__(self, user: int) -> None:
        self._process = subprocess.Popen(["sleep", "600"], user=user if os.geteuid() == 0 else None)
        self.pid = self._process.pid

    def end(self) -> None:
        assert self._process.poll() is None
        assert Path(f"/proc/{self.pid}/stat").read_text().split()[2] == "S"
        self._process.kill()
        self._process.wait()


@pytest.fixture
async def outsider(attacker: Attacker) -> AsyncIterator[Outsider]:
    marker = f"4{uuid.uuid4().int % 10**9:09d}"
    await attacker.sh(f"sleep {marker} > /dev/null 2>&1 &")
    inside = await process_with(marker)
    user = os.stat(f"/proc/{inside}").st_uid
    os.kill(inside, 9)
    outsider = Outsider(user)
    yield outsider
    outsider.end()

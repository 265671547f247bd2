"""Real slots for the tests of core."""

from __future__ import annotations

import os
import uuid
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio
import pytest

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.execution import DefaultBatchExecutor, ExecutorConfig, Slot, Tool
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from hermes_core.sandbox import LimitValue, NetworkPolicy, SandboxBackend


def processes_with(marker: str) -> list[int]:
    """The processes of this machine whose command line has a marker in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(entry.name))
    return found


async def process_with(marker: str) -> int:
    """Wait for the process: a shell may be done before what it forked has become the program."""
    with anyio.fail_after(20):
        while True:
            if found := processes_with(marker):
                (one,) = found
                return one
            await anyio.sleep(0.005)


@dataclass
class Rig:
    """A pool of real slots, and all that a `Slot` needs besides."""

    pool: DefaultSlotPool
    backend: SandboxBackend
    executor: DefaultBatchExecutor = field(default_factory=DefaultBatchExecutor)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    marker: str = field(default_factory=lambda: f"4{uuid.uuid4().int % 10**9:09d}")

    @property
    def sleep(self) -> str:
        """A command that hangs, and that `quiet` finds; with a child, to make it harder."""
        return f"sleep {self.marker} & sleep {self.marker}; true"

    async def lease(
        self,
        *,
        trajectory_id: str | None = None,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        wait_s: float | None = 20.0,
        tools: Mapping[str, Tool] | None = None,
        limits: Mapping[str, LimitValue] | None = None,
    ) -> Slot:
        request = LeaseRequest(
            network=network, env=env or {}, trajectory_id=trajectory_id, wait_s=wait_s, limits=limits or {}
        )
        return Slot(await self.pool.lease(request), self.pool, self.executor, self.tools if tools is None else tools)

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        with anyio.fail_after(20):
            while True:
                if condition():
                    return
                await anyio.sleep(0.005)

    async def hanging(self) -> None:
        """Wait until the command `sleep` runs."""
        await self.eventually(lambda: len(processes_with(self.marker)) >= 2)

    async def quiet(self) -> None:
        """Wait until no process of the command `sleep` is left."""
        await self.eventually(lambda: not processes_with(self.marker))

    async def idle(self) -> None:
        """Wait until every slot is back."""
        await self.eventually(lambda: not (self.pool.status().leased or self.pool.status().resetting))


class OpenRig(Protocol):
    def __call__(
        self, *, slots: int = 4, max_sandboxes: int = 1, max_in_flight: int = 1024, **pool: float
    ) -> AbstractAsyncContextManager[Rig]: ...


@pytest.fixture
def rig() -> OpenRig:
    """Opens a pool on the local backend; on leaving, nothing may be left of it."""

    @asynccontextmanager
    async def open_rig(
        *, slots: int = 4, max_sandboxes: int = 1, max_in_flight: int = 1024, **pool: float
    ) -> AsyncIterator[Rig]:
        config = PoolConfig(slots_per_sandbox=slots, max_sandboxes=max_sandboxes, **pool)  # type: ignore[arg-type]
        backend = LocalBackend()
        async with backend, DefaultSlotPool(backend, config) as slot_pool:
            async with DefaultBatchExecutor(ExecutorConfig(max_in_flight)) as executor:
                yield Rig(slot_pool, backend, executor)
        assert not await backend.list(slot_pool.owner)
        assert not processes_with(slot_pool.owner)

    return open_rig

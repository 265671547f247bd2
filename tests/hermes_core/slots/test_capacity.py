"""Pools where sandboxes run out of room, and pools that always have some."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import BackendUnavailableError, HermesError, LeaseTimeoutError, NoCapacityError
from hermes_core.sandbox import Capabilities, PassingBackend, Sandbox, SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hermes_core.sandbox import SandboxBackend

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

FULL = NoCapacityError("memory is exhausted on 3 nodes", hint="add nodes")


class Crowded(PassingBackend):
    """Real sandboxes of this machine, as long as there is room for them."""

    def __init__(self, backend: SandboxBackend, room: int) -> None:
        super().__init__(backend)
        self.room = room
        self.error: HermesError = FULL
        self.attempts = 0
        self.starting = 0
        self.sandboxes: list[Sandbox] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(image_per_task=True)

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        self.attempts += 1
        await anyio.sleep(0.01)
        if len(self.alive()) + self.starting >= self.room:
            raise self.error
        self.starting += 1
        try:
            sandbox = await super().start(SandboxSpec(slots=spec.slots), owner, name)
        finally:
            self.starting -= 1
        self.sandboxes.append(sandbox)
        return sandbox

    def alive(self) -> list[Sandbox]:
        return [sandbox for sandbox in self.sandboxes if not sandbox.stopped]  # type: ignore[attr-defined]

    def kill(self) -> None:
        """Take away every sandbox, as a node that is lost does."""
        for sandbox in self.alive():
            os.kill(sandbox.pid, signal.SIGKILL)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_core.slots._starts.FIRST_CAPACITY_PAUSE_S", 0.05)
    monkeypatch.setattr("hermes_core.slots._starts.LONGEST_PAUSE_S", 0.2)


@asynccontextmanager
async def crowded(room: int, **settings: float) -> AsyncIterator[tuple[DefaultSlotPool, Crowded]]:
    config = PoolConfig(**{"slots_per_sandbox": 1, "max_sandboxes": 3, **settings})  # type: ignore[arg-type]
    with anyio.fail_after(60):
        async with LocalBackend() as backend:
            crowd = Crowded(backend, room)
            async with DefaultSlotPool(crowd, config) as pool:
                yield pool, crowd


async def eventually(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await anyio.sleep(0.005)


def request(image: str | None = None, wait_s: float | None = None) -> LeaseRequest:
    return LeaseRequest(image=image, wait_s=wait_s)


async def test_callers_are_served_by_what_there_is_room_for(caplog: pytest.LogCaptureFixture) -> None:
    served = 0

    async def use() -> None:
        nonlocal served
        lease = await pool.lease(request())
        await anyio.sleep(0.05)
        pool.give_back(lease)
        served += 1

    async with crowded(1) as (pool, crowd), anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(use)
    assert served == 6
    assert crowd.attempts > 2
    said = [record for record in caplog.records if FULL.message in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]


async def test_room_that_there_is_later_is_used() -> None:
    async with crowded(1) as (pool, crowd), anyio.create_task_group() as tasks:
        await pool.lease(request())
        tasks.start_soon(pool.lease, request())
        await eventually(lambda: crowd.attempts > 3)
        assert pool.status().waiting == 1
        crowd.room = 2
        await eventually(lambda: pool.status().leased == 2)


async def test_where_there_was_never_room_callers_are_told_at_once() -> None:
    raised: list[HermesError] = []

    async def ask() -> None:
        try:
            await pool.lease(request())
        except NoCapacityError as error:
            raised.append(error)

    async with crowded(0) as (pool, crowd):
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert [(error.message, error.hint) for error in raised] == [(FULL.message, FULL.hint)] * 3
        before = crowd.attempts
        await ask()  # at once, too: what was told before does not delay it
        assert len(raised) == 4
        assert crowd.attempts == before + 1
        crowd.room = 1
        await pool.lease(request())


async def test_sandboxes_that_are_lost_may_be_waited_for() -> None:
    async with crowded(1) as (pool, crowd), anyio.create_task_group() as tasks:
        await pool.lease(request())
        crowd.room = 0
        crowd.kill()
        await eventually(lambda: pool.status().sandboxes == 0)
        tasks.start_soon(pool.lease, request())
        before = crowd.attempts
        await eventually(lambda: crowd.attempts > before + 2)
        assert pool.status().waiting == 1
        crowd.room = 1
        await eventually(lambda: pool.status().leased == 1)


async def test_they_are_not_waited_for_for_ever() -> None:
    async with crowded(1, capacity_wait_s=0.3) as (pool, crowd):
        await pool.lease(request())
        crowd.room = 0
        crowd.kill()
        await eventually(lambda: pool.status().sandboxes == 0)
        with pytest.raises(NoCapacityError, match="exhausted"):
            await pool.lease(request())


async def test_a_caller_who_waited_too_long_learns_why() -> None:
    async with crowded(1) as (pool, _):
        await pool.lease(request())
        with pytest.raises(LeaseTimeoutError, match="no other sandbox starts: memory is exhausted on 3 nodes"):
            await pool.lease(request(wait_s=0.3))


async def test_an_idle_sandbox_makes_room_where_there_is_none() -> None:
    async with crowded(1, min_sandboxes=1) as (pool, _):
        pool.give_back(await pool.lease(request()))
        lease = await pool.lease(request(image="other"))
        assert pool.status().sandboxes == 1
        pool.give_back(lease)
        await pool.lease(request())


async def test_starts_that_crash_do_not_send_away_whom_others_will_serve() -> None:
    async with crowded(1) as (pool, crowd), anyio.create_task_group() as tasks:
        crowd.error = HermesError("it crashed")
        lease = await pool.lease(request())
        tasks.start_soon(pool.lease, request())
        await eventually(lambda: crowd.attempts > 5)
        assert pool.status().waiting == 1
        pool.give_back(lease)
        await eventually(lambda: pool.status().waiting == 0)


async def test_some_sandboxes_are_there_before_anyone_asks_and_after_all_have_gone() -> None:
    async with crowded(3, min_sandboxes=2, idle_s=0.1) as (pool, crowd):
        await eventually(lambda: pool.status().sandboxes == 2)
        await anyio.sleep(0.5)
        assert pool.status().sandboxes == 2
        assert crowd.attempts == 2
        first = set(crowd.alive())
        crowd.kill()
        await eventually(lambda: pool.status().sandboxes == 2 and first.isdisjoint(crowd.alive()))
        leases = [await pool.lease(request()) for _ in range(3)]
        assert pool.status().sandboxes == 3
        for lease in leases:
            pool.give_back(lease)
        await eventually(lambda: pool.status().sandboxes == 2)


@pytest.mark.parametrize("error", [FULL, BackendUnavailableError("no engine"), RuntimeError("odd")])
async def test_sandboxes_that_nobody_asked_for_are_tried_again_until_they_start(
    error: HermesError, caplog: pytest.LogCaptureFixture
) -> None:
    async with crowded(0, min_sandboxes=1) as (pool, crowd):
        crowd.error = error
        await eventually(lambda: crowd.attempts > 5)
        crowd.room = 1
        await eventually(lambda: pool.status().sandboxes == 1)
        await pool.lease(request())
    assert "a sandbox did not start" in caplog.text


async def test_whoever_waits_is_told_by_the_error_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with crowded(0) as (pool, _):
        with pytest.raises(NoCapacityError):
            await pool.lease(request())
    assert "a sandbox did not start" not in caplog.text

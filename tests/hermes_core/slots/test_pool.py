from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import anyio
import pytest

from hermes_core.default_plugins.local_backend import LocalBackend, LocalConfig
from hermes_core.exceptions import (
    BackendUnavailableError,
    ConfigError,
    LeaseStateError,
    LeaseTimeoutError,
    SandboxLostError,
    UnknownNameError,
)
from hermes_core.sandbox import Capabilities, Sandbox, SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from tests.hermes_core.conftest import OpenRig

    from hermes_core.execution import Slot

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


def daemon_pids(backend: object) -> list[int]:
    assert isinstance(backend, LocalBackend)
    return [sandbox.pid for sandbox in backend.sandboxes if sandbox.pid is not None]


async def test_those_who_wait_are_served_in_order(rig: OpenRig) -> None:
    async with rig(slots=2) as r:
        held = [await r.lease(), await r.lease()]
        order = []

        async def wait(number: int) -> None:
            slot = await r.lease()
            order.append(number)
            await slot.release()

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                tasks.start_soon(wait, number)
                await anyio.wait_all_tasks_blocked()
            assert r.pool.status().waiting == 5
            await held[0].release()
        assert order == list(range(5))


async def test_waiting_has_a_deadline_and_says_what_is_going_on(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        slot = await r.lease()
        with pytest.raises(LeaseTimeoutError, match="1 slots, 1 leased") as raised:
            await r.lease(wait_s=0.05)
        assert raised.value.hint
        assert r.pool.status().waiting == 0
        await slot.release()
        await (await r.lease(wait_s=0)).release()


async def test_leases_at_once_do_not_queue_behind_each_other(rig: OpenRig) -> None:
    async with rig(slots=8, max_sandboxes=2) as r:
        slots: list[Slot] = []

        async def lease() -> None:
            slots.append(await r.lease())

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(lease)
        status = r.pool.status()
        assert (status.sandboxes, status.slots, status.leased) == (2, 16, 16)
        assert len({slot.lease.id for slot in slots}) == 16


async def test_an_idle_sandbox_is_stopped_and_another_started_on_demand(rig: OpenRig) -> None:
    async with rig(idle_s=0.1) as r:
        await (await r.lease()).release()
        await r.eventually(lambda: r.pool.status().sandboxes == 0)
        assert (await (await r.lease()).exec("echo new")).stdout == "new\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_daemon_is_replaced(rig: OpenRig, number: int) -> None:
    async with rig(slots=2) as r:
        slot = await r.lease(trajectory_id="t")
        raised = []

        async def run() -> None:
            try:
                await slot.exec(r.sleep)
            except SandboxLostError as error:
                raised.append(error)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await r.hanging()
            os.kill(daemon_pids(r.backend)[0], number)
        assert len(raised) == 1
        await r.quiet()
        await slot.release()
        again = await r.lease(trajectory_id="t")
        assert (await again.exec("echo again")).stdout == "again\n"
        assert r.pool.status().sandboxes == 1


async def test_a_daemon_that_hangs_is_noticed_and_replaced(rig: OpenRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_core.slots._keeper.HEALTH_S", 0.2)
    monkeypatch.setattr("hermes_core.default_plugins.local_backend._sandbox.STOP_S", 0.2)
    async with rig(slots=1, health_interval_s=0.1) as r:
        slot = await r.lease()
        os.kill(daemon_pids(r.backend)[0], signal.SIGSTOP)
        with anyio.fail_after(15), pytest.raises(SandboxLostError):
            await slot.exec("true")
        with anyio.fail_after(15):
            assert (await (await r.lease()).exec("echo again")).stdout == "again\n"


async def test_a_trajectory_has_one_slot_at_a_time(rig: OpenRig) -> None:
    async with rig() as r:
        slot = await r.lease(trajectory_id="t")
        with pytest.raises(LeaseStateError, match="'t'"):
            await r.lease(trajectory_id="t")
        await slot.release()
        assert (await r.lease(trajectory_id="t")).trajectory_id == "t"


async def test_what_the_backend_cannot_honour_is_refused_before_anything_starts(rig: OpenRig) -> None:
    async with rig() as r:
        with pytest.raises(ConfigError, match="image"):
            await r.pool.lease(LeaseRequest(image="debian"))
        with pytest.raises(UnknownNameError, match="profile"):
            await r.pool.lease(LeaseRequest(profile="big"))
        status = r.pool.status()
        assert (status.sandboxes, status.starting) == (0, 0)
    with pytest.raises(LeaseStateError, match="closed"):
        await r.lease()


async def test_closing_the_pool_sends_those_who_wait_away() -> None:
    async def wait() -> None:
        with pytest.raises((LeaseStateError, SandboxLostError)):
            await pool.lease(LeaseRequest())

    async with anyio.create_task_group() as tasks, LocalBackend() as backend:
        async with DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool:
            for _ in range(3):
                tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()


async def test_a_lease_may_be_given_back_from_any_task_any_number_of_times(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        slot = await r.lease()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(slot.release)
        r.pool.give_back(slot.lease)
        status = r.pool.status()
        assert (status.leased, status.resetting, status.slots) == (0, 0, 1)


@dataclass
class Failing:
    """A backend whose sandboxes do not come up."""

    errors: list[Exception]
    starts: int = 0
    config: LocalConfig = field(default_factory=LocalConfig)
    capabilities: Capabilities = field(default_factory=Capabilities)
    Config: ClassVar[type[LocalConfig]] = LocalConfig
    name: ClassVar[str] = "failing"

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        self.starts += 1
        await anyio.sleep(0.01)
        raise self.errors[min(self.starts, len(self.errors)) - 1]


async def lease_all(backend: Failing, callers: int) -> list[Exception]:
    raised: list[Exception] = []

    async def lease() -> None:
        try:
            await pool.lease(LeaseRequest(wait_s=20))
        except Exception as error:
            raised.append(error)

    config = PoolConfig(slots_per_sandbox=1, max_sandboxes=2)
    async with DefaultSlotPool(backend, config) as pool, anyio.create_task_group() as tasks:  # type: ignore[arg-type]
        for _ in range(callers):
            tasks.start_soon(lease)
    return raised


async def test_everyone_learns_at_once_that_the_backend_cannot_work() -> None:
    with anyio.fail_after(30):
        raised = await lease_all(Failing([BackendUnavailableError("no bubblewrap", hint="install it")]), 5)
    assert [str(error) for error in raised] == ["no bubblewrap"] * 5
    assert all(isinstance(error, BackendUnavailableError) and error.hint == "install it" for error in raised)
    assert len(set(map(id, raised))) == 5


async def test_sandboxes_that_do_not_come_up_are_tried_again_and_then_told(caplog: pytest.LogCaptureFixture) -> None:
    backend = Failing([SandboxLostError("it crashed"), RuntimeError("odd"), SandboxLostError("it crashed")])
    with anyio.fail_after(10):
        raised = await lease_all(backend, 2)
    assert {type(error) for error in raised} == {SandboxLostError}
    assert "sandboxes do not start" in str(raised[0])
    assert backend.starts >= 3
    assert "a sandbox did not start" in caplog.text

"""Whatever is cancelled, by whatever means: no process stays in the slot, and no slot is lost."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import anyio
import pytest

from hermes_core.execution import JsonValue, Slot, ToolCall, ToolContext, ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.hermes_core.conftest import OpenRig, Rig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

What = Literal["exec", "call", "write"]


@dataclass
class Shell:
    """A tool that runs a command in the turn that it holds."""

    needs_slot: bool = True
    timeout_s: float = 60.0

    @property
    def definition(self) -> ToolDefinition:
        return ToolDefinition("shell", "", {})

    def unavailable(self) -> str | None:
        return None

    async def run(self, arguments: Mapping[str, JsonValue], context: ToolContext, slot: Slot | None) -> JsonValue:
        assert slot is not None
        await slot.exec("true")
        return (await slot.exec(str(arguments["command"]), timeout_s=60)).stdout


def action(what: What, r: Rig, slot: Slot) -> Callable[[], Awaitable[object]]:
    """Something that hangs in the slot until it is cancelled."""
    if what == "exec":
        return lambda: slot.exec(r.sleep, timeout_s=60)
    if what == "call":
        return lambda: slot.call(ToolCall("shell", {"command": r.sleep}))

    async def write() -> None:
        # The reader of the body waits: the request hangs with a full window and most of its body unsent.
        await slot.exec(f"{r.sleep}; cat", stdin=bytes(8_000_000), timeout_s=60)

    return write


async def leaves_no_trace(r: Rig, slot: Slot) -> None:
    await r.quiet()
    with anyio.fail_after(10):
        assert (await slot.exec("echo usable")).stdout == "usable\n"
        await slot.release()
    await all_slots_are_there(r)


async def all_slots_are_there(r: Rig) -> None:
    await r.idle()
    with anyio.fail_after(10):
        slots = [await r.lease() for _ in range(2)]
        for slot in slots:
            assert (await slot.exec("ls -A | wc -l")).stdout == "0\n"
    assert len({slot.lease.id for slot in slots}) == 2


@pytest.mark.parametrize("what", ["exec", "call", "write"])
@pytest.mark.parametrize("times", [1, 2])
async def test_by_a_cancel_scope_from_another_task(rig: OpenRig, what: What, times: int) -> None:
    async with rig(slots=2) as r:
        slot = await r.lease(tools={"shell": Shell()})
        scopes = [anyio.CancelScope() for _ in range(times)]

        async def run() -> None:
            with scopes[0], scopes[-1] if times > 1 else anyio.CancelScope():
                await action(what, r, slot)()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await r.hanging()
            for scope in scopes:
                scope.cancel()
        await leaves_no_trace(r, slot)


@pytest.mark.parametrize("what", ["exec", "call", "write"])
async def test_by_a_deadline(rig: OpenRig, what: What) -> None:
    async with rig(slots=2) as r:
        slot = await r.lease(tools={"shell": Shell()})
        with anyio.move_on_after(0.1) as scope:
            await action(what, r, slot)()
        assert scope.cancelled_caught
        await leaves_no_trace(r, slot)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("what", ["exec", "call", "write"])
@pytest.mark.parametrize("way", ["once", "twice", "burst"])
async def test_natively_by_asyncio(rig: OpenRig, what: What, way: str) -> None:
    async with rig(slots=2) as r:
        slot = await r.lease(tools={"shell": Shell()})
        task = asyncio.ensure_future(action(what, r, slot)())
        await r.hanging()
        task.cancel()
        if way == "twice":
            await asyncio.sleep(0)
            task.cancel()
        elif way == "burst":
            for _ in range(20):
                task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await leaves_no_trace(r, slot)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_at_any_moment_of_a_call(rig: OpenRig) -> None:
    async with rig(slots=2) as r:
        slot = await r.lease(tools={"shell": Shell()})
        for steps in range(40):
            tasks = [
                asyncio.ensure_future(slot.exec(f"true {steps}")),
                asyncio.ensure_future(slot.call(ToolCall("shell", {"command": "true"}))),
                asyncio.ensure_future(slot.exec("cat", stdin=bytes(200_000))),
            ]
            for _ in range(steps):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await leaves_no_trace(r, slot)


async def test_a_lease_at_any_moment(rig: OpenRig) -> None:
    async with rig(slots=2) as r:
        await (await r.lease()).release()

        async def lease(got: list[Slot]) -> None:
            got.append(await r.lease())

        for delay_ms in range(30):
            got: list[Slot] = []
            async with anyio.create_task_group() as tasks:
                for _ in range(4):
                    tasks.start_soon(lease, got)
                await anyio.sleep(delay_ms / 1000)
                tasks.cancel_scope.cancel()
            for slot in got:
                r.pool.give_back(slot.lease)
        await all_slots_are_there(r)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_lease_natively(rig: OpenRig, times: int) -> None:
    async with rig(slots=2) as r:
        await (await r.lease()).release()
        for steps in range(60):
            tasks = [asyncio.ensure_future(r.lease()) for _ in range(4)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for _ in range(times):
                for task in tasks:
                    task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Slot):
                    r.pool.give_back(outcome.lease)
        await all_slots_are_there(r)


async def test_while_waiting_for_a_slot_or_for_ones_turn(rig: OpenRig) -> None:
    async with rig(slots=2) as r:
        slots = [await r.lease(), await r.lease()]
        async with anyio.create_task_group() as outer:
            outer.start_soon(slots[0].exec, r.sleep)
            await r.hanging()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(r.lease)
                tasks.start_soon(slots[0].exec, "true")
                tasks.start_soon(slots[0].read_file, "nothing")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            assert r.pool.status().waiting == 0
            outer.cancel_scope.cancel()
        await slots[1].release()
        await leaves_no_trace(r, slots[0])


async def test_while_giving_back(rig: OpenRig) -> None:
    async with rig(slots=2) as r:
        slots = [await r.lease(), await r.lease()]
        for slot in slots:
            await slot.exec("touch left; sleep 60 > /dev/null 2>&1 &")
            with anyio.CancelScope() as scope:
                scope.cancel()
                await slot.release()
        await all_slots_are_there(r)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_owner_of_the_pool_natively(rig: OpenRig) -> None:
    leased = asyncio.Event()
    kept: list[Rig] = []

    async def own() -> None:
        async with rig(slots=2) as r:
            kept.append(r)
            slot = await r.lease()
            leased.set()
            await slot.exec(r.sleep)

    task = asyncio.ensure_future(own())
    await leased.wait()
    await kept[0].hanging()
    task.cancel()
    await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await kept[0].quiet()

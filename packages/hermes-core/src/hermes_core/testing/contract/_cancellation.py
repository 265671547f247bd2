"""Promises about cancelling: what was asked for ends, and nothing else suffers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from hermes_core.testing.contract._check import ALL_LEVELS, check
from hermes_core.testing.contract._commands import stubborn
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig


@check("Cancelling a command kills all that it started, and leaves the slot and its files usable.", levels=ALL_LEVELS)
async def cancelled_commands(rig: ContractRig) -> None:
    slot = await rig.lease()
    marker = rig.marker()
    ready = anyio.Event()

    def on_output(stream: str, data: bytes) -> None:
        if b"ready" in data:
            ready.set()

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await slot.exec(f"touch kept; {stubborn(marker)}", on_output=on_output, timeout_s=1000)

        tasks.start_soon(run)
        await ready.wait()
        tasks.cancel_scope.cancel()
    assert (await slot.exec("ls")).stdout == "kept\n"
    assert await rig.count(slot, marker) == 0, "processes of a cancelled command still run"


@check("A command that is cancelled before its turn never runs.", levels=ALL_LEVELS)
async def cancelled_in_the_queue(rig: ContractRig) -> None:
    slot = await rig.lease()
    started = anyio.Event()

    async def first() -> None:
        await slot.exec("echo on; sleep 0.3; touch first", on_output=lambda *_: started.set())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await started.wait()
        with anyio.move_on_after(0.05) as scope:
            await slot.exec("touch second")
        assert scope.cancelled_caught, "the second command did not wait for the first"
    assert (await slot.exec("ls")).stdout == "first\n"


@check("Cancelling one slot's command leaves the commands of others alone.", levels=ALL_LEVELS, needs=("a neighbour",))
async def cancelling_one_of_many(rig: ContractRig) -> None:
    slot, other = await rig.lease(), await rig.lease()
    started = anyio.Event()
    results: list[str] = []

    async def undisturbed() -> None:
        done = await other.exec("echo on; sleep 0.5; echo through", on_output=lambda *_: started.set())
        results.append(done.stdout)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(undisturbed)
        await started.wait()
        for _ in range(5):
            with anyio.move_on_after(0.02):
                await slot.exec("sleep 1000", timeout_s=1000)
    assert results == ["on\nthrough\n"]


@check("A cancelled write leaves the file that was there, whole.", levels=ALL_LEVELS)
async def cancelled_writes(rig: ContractRig) -> None:
    slot = await rig.lease()
    old, new = b"old" * 100, os.urandom(1 << 20) * 30
    for delay in (0.0, 0.01, 0.03, 0.1):
        await slot.write_file("file", old)
        with anyio.move_on_after(delay):
            await slot.write_file("file", new)
        content = await slot.read_file("file")
        assert content in (old, new), f"a cancelled write left {len(content)} bytes that are neither old nor new"
        assert (await slot.exec("ls -A")).stdout == "file\n", "a cancelled write left something else behind"


@check(
    "An error in the taker of live output ends the command, reaches the caller, and leaves the slot usable.",
    levels=ALL_LEVELS,
)
async def failing_consumer(rig: ContractRig) -> None:
    slot = await rig.lease()
    marker = rig.marker()

    def on_output(stream: str, data: bytes) -> None:
        raise LookupError(marker)

    request = slot.exec(f"echo on; sleep {marker}", on_output=on_output, timeout_s=1000)
    error = await expect(LookupError, request, "the error of the taker of live output was swallowed")
    assert marker in str(error)
    assert await rig.count(slot, marker) == 0, "the command still runs"


@check("Who stops waiting for a slot leaves the queue, and no slot is lost.", levels=ALL_LEVELS)
async def cancelled_waiting(rig: ContractRig) -> None:
    held = await rig.lease(pool=rig.single)
    for delay in (0.0, 0.01, 0.05):
        with anyio.move_on_after(delay) as scope:
            await rig.lease(pool=rig.single)
        assert scope.cancelled_caught
    assert rig.single.status().waiting == 0
    await held.release()
    again = await rig.lease(pool=rig.single)
    assert (await again.exec("echo fine")).stdout == "fine\n"


@check("A lease that is cancelled while it is opened is given back.", levels=ALL_LEVELS)
async def cancelled_leasing(rig: ContractRig) -> None:
    for delay in (0.0, 0.001, 0.003, 0.01):
        with anyio.move_on_after(delay):
            slot = await rig.lease(pool=rig.single)
            await slot.release()
    await rig.eventually(lambda: rig.single.status().leased + rig.single.status().resetting == 0, "the slot is back")
    await rig.release_all()
    again = await rig.lease(pool=rig.single)
    assert (await again.exec("echo fine")).stdout == "fine\n"

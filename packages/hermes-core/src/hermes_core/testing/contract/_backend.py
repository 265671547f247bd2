"""Promises about the backend itself: starting, finding, reaching and stopping sandboxes."""

from __future__ import annotations

import os
import uuid
from itertools import count
from typing import TYPE_CHECKING

import anyio
from pydantic import BaseModel

from hermes_core.exceptions import HermesError, SandboxError
from hermes_core.sandbox import SandboxSpec, SlotClient
from hermes_core.testing.contract._check import ALL_LEVELS, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig

COUNT = "echo ran >> log; echo started; sleep 0.7; cat log; head -c 300000 /dev/zero | tr '\\0' x"


def new_owner() -> str:
    """Return an owner that has nothing yet."""
    return f"contract-{uuid.uuid4().hex[:8]}"


async def shell(slot: SlotClient, command: str) -> str:
    """Run a command in a slot that no pool knows; return its standard output."""
    return (await slot.exec(["/bin/sh", "-c", command], timeout_s=30)).stdout.decode()


@check("A backend's class has frozen settings with defaults, and a backend says what it is and can.", levels=ALL_LEVELS)
async def settings(rig: ContractRig) -> None:
    backend = rig.backend
    config = getattr(type(backend), "Config", None)
    assert isinstance(config, type), "the backend's class has no attribute Config"
    assert issubclass(config, BaseModel), "Config is no pydantic model"
    assert config.model_config.get("frozen"), "Config is not frozen"
    assert config.model_config.get("extra") == "forbid", "Config takes settings that nobody knows"
    config()
    assert isinstance(backend.config, config)
    assert backend.name
    assert backend.name == getattr(type(backend), "name", backend.name)
    assert rig.level in backend.capabilities.isolation, (
        f"slots have level {rig.level}, which is none of the capabilities {backend.capabilities.isolation}"
    )


@check("A started sandbox lives, has its name, and says how many slots it has.", levels=ALL_LEVELS)
async def started(rig: ContractRig) -> None:
    owner = new_owner()
    async with rig.open_sandbox(slots=2, owner=owner) as sandbox:
        assert sandbox.name == f"{owner}-0"
        assert await sandbox.alive() is None
        async with rig.open_client(sandbox) as client:
            facts = client.facts
            assert 1 <= facts.capacity <= 2, f"2 slots were asked for, and the daemon has {facts.capacity}"
            assert facts.capacity == sandbox.capacity
            assert facts.isolation == rig.level
            assert facts.daemon_id


@check("All slots of a sandbox can be open at once, and no more than those.", levels=ALL_LEVELS, needs=("a neighbour",))
async def capacity(rig: ContractRig) -> None:
    async with rig.open_sandbox(slots=3) as sandbox, rig.open_client(sandbox) as client:
        slots = [SlotClient(client, index) for index in range(sandbox.capacity)]
        for slot in slots:
            await slot.open(network=rig.network)
        for slot in slots:
            assert await shell(slot, "echo fine") == "fine\n"
        for index in (sandbox.capacity, 1000, -1):
            opening = SlotClient(client, index).open(network=rig.network)
            await expect(HermesError, opening, f"slot {index} of {sandbox.capacity} was opened")


@check("A stopped sandbox is gone, says why, cannot be reached; stopping it again changes nothing.", levels=ALL_LEVELS)
async def stopped(rig: ContractRig) -> None:
    owner = new_owner()
    async with rig.open_sandbox(owner=owner) as sandbox:
        await sandbox.stop()
        why = await sandbox.alive()
        assert why, "alive() of a stopped sandbox says that it lives"
        assert "\n" not in why, "the reason is more than one line"
        assert not await rig.backend.list(owner)
        try:
            async with rig.open_client(sandbox):
                raise AssertionError("a stopped sandbox still answers")
        except* SandboxError:
            pass
        await sandbox.stop()
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(sandbox.stop)


@check("Sandboxes are listed by their owner, from another instance of the backend as well.", levels=ALL_LEVELS)
async def listed(rig: ContractRig) -> None:
    owner, stranger = new_owner(), new_owner()
    assert not await rig.backend.list(owner)
    async with rig.open_sandbox(owner=owner) as sandbox, rig.make_backend() as second:
        for backend in (rig.backend, second):
            names = [(info.name, info.owner) for info in await backend.list(owner)]
            assert names == [(sandbox.name, owner)], f"list({owner!r}) names {names}"
            assert not await backend.list(stranger), "list() names sandboxes of others"
            everyone = {info.name for info in await backend.list()}
            assert sandbox.name in everyone, "list() without an owner does not name everyone's"
    assert not await rig.backend.list(owner)


@check("Leaving a backend stops what it started, and nothing that another started.", levels=ALL_LEVELS)
async def cleaned_up(rig: ContractRig) -> None:
    owner, other = new_owner(), new_owner()
    async with rig.open_sandbox(owner=other) as untouched:
        async with rig.make_backend() as backend:
            sandboxes = [await backend.start(SandboxSpec(slots=1), owner, f"{owner}-{index}") for index in range(2)]
            assert len(await backend.list(owner)) == 2
        for sandbox in sandboxes:
            assert await sandbox.alive(), "a sandbox outlived its backend"
        assert not await rig.backend.list(owner)
        assert await untouched.alive() is None


@check("Looking and cleaning up work on a backend that was not entered, and never touch what lives.", levels=ALL_LEVELS)
async def cleanup_spares_the_living(rig: ContractRig) -> None:
    owner = new_owner()
    outside = rig.make_backend()
    async with rig.open_sandbox(owner=owner) as sandbox, rig.open_client(sandbox) as client:
        [info] = await outside.list(owner)
        assert (info.name, info.owner, info.state) == (sandbox.name, owner, "running")
        # Of this owner only: what others left here is no business of a test.
        assert not await outside.cleanup(owner), "a living sandbox was cleaned up"
        assert await sandbox.alive() is None
        slot = SlotClient(client, 0)
        await slot.open(network=rig.network)
        assert await shell(slot, "echo fine") == "fine\n"
    assert not await outside.list(owner)
    assert not await outside.cleanup(owner)


@check("Cancelling the start of a sandbox leaves nothing behind.", levels=ALL_LEVELS)
async def cancelled_start(rig: ContractRig) -> None:
    owner = new_owner()
    numbers = count()
    for delay in (0.0, 0.005, 0.02, 0.1):
        with anyio.move_on_after(delay):
            sandbox = await rig.backend.start(SandboxSpec(slots=1), owner, f"{owner}-{next(numbers)}")
            with anyio.CancelScope(shield=True):
                await sandbox.stop()
        left = await rig.backend.list(owner)
        assert not left, f"cancelled after {delay:g} s, the start left {left}"


@check(
    "Two clients can be connected to a sandbox at once, and neither can touch the other's slots.",
    levels=ALL_LEVELS,
    needs=("a neighbour",),
)
async def connected_twice(rig: ContractRig) -> None:
    async with rig.open_sandbox(slots=2) as sandbox, rig.open_client(sandbox) as one, rig.open_client(sandbox) as two:
        first, second = SlotClient(one, 0), SlotClient(two, 1)
        await first.open(network=rig.network)
        await second.open(network=rig.network)
        assert await shell(first, "echo one") == "one\n"
        assert await shell(second, "echo two") == "two\n"
        for attempt in (SlotClient(two, 0).open(network=rig.network), shell(SlotClient(two, 0), "true")):
            await expect(HermesError, attempt, "a client used the slot of another")
        assert await shell(first, "echo still") == "still\n"


@check(
    "A connection that drops in the middle of a command loses nothing: it ran once, and its output is whole.",
    levels=ALL_LEVELS,
)
async def dropped_in_a_command(rig: ContractRig) -> None:
    async with rig.open_pool(slots=1) as private:
        slot = await rig.lease(pool=private.pool)
        live = b""

        def on_output(stream: str, data: bytes) -> None:
            nonlocal live
            live += data
            if data == b"started\n":
                slot.lease.client.sandbox.reconnect()

        done = await slot.exec(COUNT, on_output=on_output)
        assert done.stdout[:20].split()[:2] == ["started", "ran"], done.stdout[:40]
        assert done.stdout_bytes == 300_012, f"the command ran more than once, or not whole: {done.stdout[:40]!r}"
        assert live.decode() == done.stdout, "live output was lost or doubled"
        assert await slot.read_file("log") == b"ran\n"
        await rig.release_all()


@check("A connection that drops in the middle of a file loses nothing of it.", levels=ALL_LEVELS)
async def dropped_in_a_file(rig: ContractRig) -> None:
    async with rig.open_pool(slots=1) as private:
        slot = await rig.lease(pool=private.pool)
        data = os.urandom(1 << 20) * 16
        drop = slot.lease.client.sandbox.reconnect
        for delay in (0.0, 0.01, 0.03):
            await slot.exec("rm -f file")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slot.write_file, "file", data)
                await anyio.sleep(delay)
                drop()
            received = b""

            async def read() -> None:
                nonlocal received
                received = await slot.read_file("file")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await anyio.sleep(delay)
                drop()
            assert received == data, f"dropped after {delay:g} s"
        await rig.release_all()

"""Promises about background processes, which live until they end, are killed, or the lease ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import LeaseStateError, SlotJobError
from hermes_core.testing.contract._check import ALL_LEVELS, check
from hermes_core.testing.contract._expect import expect

if TYPE_CHECKING:
    from hermes_core.sandbox import JobOutput, SlotClient
    from hermes_core.testing.contract._rig import ContractRig


async def start(slot: SlotClient, command: str) -> int:
    """Start a line of shell in the background."""
    return await slot.start(["/bin/sh", "-c", command])


async def ended(slot: SlotClient, job: int) -> JobOutput:
    """Wait for the end of a background process; return how it ended, with all of its output."""
    while (await slot.poll(job, offset=1 << 50, wait_s=1)).running:
        pass
    return await slot.poll(job)


async def shows(slot: SlotClient, job: int, text: bytes) -> bytes:
    """Wait until the output of a background process has a text in it; return all of it."""
    while True:
        seen = await slot.poll(job)
        if text in seen.data:
            return seen.data
        assert seen.running, f"it ended without {text!r}: {seen.data!r}"
        await slot.poll(job, offset=seen.end, wait_s=1)


@check("A background process runs while commands do, and its output and its end are told.", levels=ALL_LEVELS)
async def background_processes(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    job = await start(client, "echo out; echo err >&2; while [ ! -e go ]; do sleep 0.02; done; exit 3")
    assert (await shows(client, job, b"err\n")) == b"out\nerr\n"
    assert (await slot.exec("touch go")).exit_code == 0
    done = await ended(client, job)
    assert (done.exit_code, done.signal, done.data) == (3, None, b"out\nerr\n")


@check("Background processes are listed, running ones and ended ones.", levels=ALL_LEVELS)
async def background_listed(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    assert await client.jobs() == []
    one, two = await start(client, "exit 5"), await start(client, "sleep 1000")
    await ended(client, one)
    told = [(job.job, job.running, job.exit_code) for job in await client.jobs()]
    assert told == [(one, False, 5), (two, True, None)]


@check(
    "The output of a background process can be fetched from any byte on, and the last of it is kept.", levels=ALL_LEVELS
)
async def background_output(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    job = await start(client, "seq 1 1000; sleep 1000")
    whole = await shows(client, job, b"\n1000\n")
    part = await client.poll(job, offset=100, max_bytes=50)
    assert (part.offset, part.data, part.end) == (100, whole[100:150], len(whole))
    job = await client.start(["/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo last"], output_cap=10_000)
    kept = await ended(client, job)
    assert kept.end == 1_000_005, "what was written is not counted exactly"
    assert kept.offset == kept.end - len(kept.data), "it is not told which bytes are kept"
    assert len(kept.data) <= 10_000
    assert kept.data.endswith(b"xlast\n"), "the last output is not what is kept"


@check("A background process reads what it is sent, whole, and its input ends when it is told to.", levels=ALL_LEVELS)
async def background_input(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    data = os.urandom(500_000)
    job = await start(client, "cat > received; echo received")
    for offset in range(0, len(data), 100_000):
        assert await client.input(job, data[offset : offset + 100_000]) == 100_000
    await client.input(job, end=True)
    assert (await ended(client, job)).data == b"received\n"
    assert await slot.read_file("received") == data


@check("Background processes outlive the deadlines and the cancelling of commands.", levels=ALL_LEVELS)
async def background_outlives_commands(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    marker = rig.marker()
    job = await start(client, f"sleep {marker}")
    assert (await slot.exec("sleep 1000", timeout_s=0.3)).timed_out
    with anyio.move_on_after(0.2):
        await slot.exec("sleep 1000", timeout_s=1000)
    assert (await slot.exec("true")).exit_code == 0
    assert (await client.poll(job)).running
    assert await rig.count(slot, marker) >= 1


@check("Killing a background process kills all that it started, and nothing else.", levels=ALL_LEVELS)
async def background_killed(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    mine, other = rig.marker(), rig.marker()
    bystander = await start(client, f"sleep {other}")
    job = await start(client, f"setsid sleep {mine} & (trap '' TERM; sleep {mine}) & echo on; sleep {mine}")
    await shows(client, job, b"on\n")
    await client.kill(job)
    done = await ended(client, job)
    assert (done.exit_code, done.signal) == (None, 9), done
    assert await rig.count(slot, mine) == 0, "what a killed background process had started still runs"
    assert (await client.poll(bystander)).running
    assert await rig.count(slot, other) >= 1
    gentle = await start(client, "trap 'exit 7' USR1; echo on; while :; do sleep 0.02; done")
    await shows(client, gentle, b"on\n")
    await client.kill(gentle, 10)
    assert (await ended(client, gentle)).exit_code == 7, "another signal does not reach the process"


@check("No background process outlives its lease, and the next lease knows of none.", levels=ALL_LEVELS)
async def background_ends_with_the_lease(rig: ContractRig) -> None:
    slot = await rig.lease(pool=rig.single)
    marker = rig.marker()
    job = await start(slot.lease.client, f"setsid sleep {marker} & trap '' TERM; echo on; sleep {marker}")
    await shows(slot.lease.client, job, b"on\n")
    await slot.release()
    again = await rig.lease(pool=rig.single)
    assert await again.lease.client.jobs() == []
    assert await rig.count(again, marker) == 0


@check("What is no background process of the slot is refused, and harms nothing.", levels=ALL_LEVELS)
async def background_unknown(rig: ContractRig) -> None:
    slot = await rig.lease()
    client = slot.lease.client
    for request in (client.poll(77), client.input(77, b"x"), client.kill(77), client.resize(77, 24, 80)):
        await expect(SlotJobError, request, "job 77 does not exist")
    await expect(SlotJobError, client.start(["/no/such/program"]), "it cannot be started")
    assert (await slot.exec("echo fine")).stdout == "fine\n"


@check(
    "A handle of a background process tells what is new, waits for the end, and ends with the lease.", levels=ALL_LEVELS
)
async def background_handles(rig: ContractRig) -> None:
    slot = await rig.lease()
    process = await slot.start("echo one; read word; echo $word; exit 4")
    seen = ""
    while "one\n" not in seen:
        seen += (await process.poll(wait_s=1)).text
    assert (await process.poll()).text == "", "what was told is told again"
    await process.write("two\n")
    done = await process.wait()
    assert (done.text, done.running, done.exit_code, done.signal) == ("two\n", False, 4, None)
    assert (await slot.process(process.number).poll()).text == "one\ntwo\n", "another handle begins at the beginning"
    endless = await slot.start("sleep 1000")
    await slot.release()
    await expect(LeaseStateError, endless.poll(), "a handle was used after the lease had ended")

"""Promises about what commands write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from hermes_core.testing.contract._check import ALL_LEVELS, check

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig

MARKER = re.compile(r"\n\[hermes: (\d+) bytes left out\]\n")
CAP = 1 << 20
PAGE = 4096


@check("Standard output and standard error come back apart, and are counted.", levels=ALL_LEVELS)
async def streams_apart(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("echo out; echo errör >&2; echo out again")
    assert (done.stdout, done.stderr) == ("out\nout again\n", "errör\n")
    assert (done.stdout_bytes, done.stderr_bytes) == (14, 7)


@check("Every byte of the output comes back; as text, what is no UTF-8 is replaced.", levels=ALL_LEVELS)
async def any_bytes(rig: ContractRig) -> None:
    slot = await rig.lease()
    data = bytes(range(256)) * 300
    await slot.write_file("data", data)
    outcome = await slot.lease.client.exec(["cat", "data"], timeout_s=30)
    assert outcome.stdout == data
    done = await slot.exec("printf 'a\\377b\\000c'")
    assert (done.stdout, done.stdout_bytes) == ("a\ufffdb\0c", 5)


@check(
    "Of output beyond the cap the head and the tail are kept, around a marker with the exact count.", levels=ALL_LEVELS
)
async def head_and_tail(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo last")
    assert done.truncated, "output beyond the cap was not told to be truncated"
    assert done.stdout_bytes == 3_000_011, "what was written is not counted exactly"
    assert done.stdout.startswith("first\n"), "the head is missing"
    assert done.stdout.endswith("xlast\n"), "the tail is missing"
    found = MARKER.search(done.stdout)
    assert found is not None, "there is no marker between head and tail"
    kept = len(done.stdout) - len(found[0])
    assert kept <= CAP, f"{kept} bytes were kept"
    assert int(found[1]) == done.stdout_bytes - kept, f"{found[0]!r} beside {kept} bytes that were kept"


@check("100 MB of output come to their end and are counted, in bounded memory.", levels=ALL_LEVELS)
async def much_output(rig: ContractRig) -> None:
    slot = await rig.lease()
    await slot.exec("true")
    before = resident_bytes()
    done = await slot.exec("head -c 100000000 /dev/zero; echo done >&2", timeout_s=60)
    assert (done.exit_code, done.stdout_bytes, done.stderr) == (0, 100_000_000, "done\n")
    assert len(done.stdout) <= CAP + 100
    grown = resident_bytes() - before
    assert grown < 32_000_000, f"100 MB of output made this process grow by {grown} bytes"


def resident_bytes() -> int:
    """Return how much memory this process uses; 0 where that cannot be told."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * PAGE if statm.exists() else 0


@check("Live output arrives while the command runs.", levels=ALL_LEVELS)
async def live_output(rig: ContractRig) -> None:
    slot = await rig.lease()
    seen: list[tuple[str, bytes]] = []
    arrived = anyio.Event()

    def on_output(stream: str, data: bytes) -> None:
        seen.append((stream, data))
        arrived.set()

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await slot.exec("echo early; sleep 1000", on_output=on_output, timeout_s=1000)

        tasks.start_soon(run)
        await arrived.wait()
        tasks.cancel_scope.cancel()
    assert seen[0] == ("stdout", b"early\n")


@check("Live output is complete and in order, stream by stream, and what is kept is the same.", levels=ALL_LEVELS)
async def live_output_in_order(rig: ContractRig) -> None:
    slot = await rig.lease()
    seen = {"stdout": b"", "stderr": b""}

    async def on_output(stream: str, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        seen[stream] += data

    command = "i=0; while [ $i -lt 3000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"
    done = await slot.exec(command, on_output=on_output, timeout_s=60)
    for stream, kept in (("out", done.stdout), ("err", done.stderr)):
        expected = "".join(f"{stream} {number}\n" for number in range(3000))
        assert seen[f"std{stream}"].decode() == expected, f"live std{stream} is not what was written"
        assert kept == expected, f"what is kept of std{stream} is not what was written"


@check(
    "Who takes live output slowly holds up the own command, and nobody else.", levels=ALL_LEVELS, needs=("a neighbour",)
)
async def slow_consumer(rig: ContractRig) -> None:
    slow, other = await rig.lease(), await rig.lease()
    released = anyio.Event()
    seen = 0

    async def on_output(stream: str, data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        await released.wait()

    async def run() -> None:
        done = await slow.exec("head -c 8000000 /dev/zero", on_output=on_output, timeout_s=60)
        assert done.stdout_bytes == 8_000_000

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await rig.eventually(lambda: seen > 0, "live output of the slow one")
        for _ in range(3):
            assert (await other.exec("echo free", timeout_s=10)).stdout == "free\n"
        assert seen <= CAP, "more was delivered than was taken"
        released.set()
    assert seen == 8_000_000


@check(
    "A reader that goes away ends the writer as usual: broken pipes and interrupts are not ignored.", levels=ALL_LEVELS
)
async def default_signals(rig: ContractRig) -> None:
    slot = await rig.lease()
    done = await slot.exec("yes | head -n 1", timeout_s=20)
    assert (done.exit_code, done.stdout) == (0, "y\n")
    status = await slot.exec("grep -E '^Sig(Ign|Blk)' /proc/self/status")
    for line in status.stdout.splitlines():
        assert int(line.split()[1], 16) & 0x7FFFFFFF == 0, f"a command starts with signals ignored or blocked: {line}"

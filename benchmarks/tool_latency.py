"""What a tool call costs, against the price of a bare process on the same machine in the same run.

    python benchmarks/tool_latency.py            # a table, and whether each bar is reached
    python benchmarks/tool_latency.py --json     # the same as JSON
    python benchmarks/tool_latency.py --quick    # a tenth of the work

Kinds of calls take turns in short rounds, so that drift of the machine meets all of them alike.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from report import Report, spread

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.default_plugins.tools import terminal
from hermes_core.execution import DefaultBatchExecutor, Slot, ToolCall
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig
from hermes_sandboxd import find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

SHELL = ["/bin/sh", "-c", "true"]
SLOTS = 64
MANY = 200
FILE_BYTES = 50_000_000
PROCESSORS = os.cpu_count() or 1


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await call()
    return time.perf_counter() - begin


@dataclass
class Rig:
    """A pool of real slots."""

    pool: DefaultSlotPool
    backend: LocalBackend
    executor: DefaultBatchExecutor

    async def lease(self) -> Slot:
        """Lease one."""
        return Slot(await self.pool.lease(LeaseRequest()), self.pool, self.executor, {"terminal": terminal})


@asynccontextmanager
async def _rig() -> AsyncIterator[Rig]:
    async with LocalBackend() as backend, DefaultSlotPool(backend, PoolConfig(SLOTS)) as pool:
        async with DefaultBatchExecutor() as executor:
            yield Rig(pool, backend, executor)


async def latency(rig: Rig, report: Report, scale: float) -> None:
    """The price of one call, kinds taking turns."""
    slot = await rig.lease()
    bubblewrap = [str(find_bubblewrap()), "--unshare-all", "--unshare-user", "--disable-userns", "--ro-bind", "/", "/"]
    bubblewrap += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *SHELL]

    async def spawn(argv: list[str]) -> None:
        subprocess.run(argv, capture_output=True, check=True)  # noqa: ASYNC221 - it is what is measured

    async def call() -> None:
        assert (await slot.call(ToolCall("terminal", {"command": "true"}))).success

    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "bare spawn": lambda: spawn(SHELL),
        "bubblewrap per call": lambda: spawn(bubblewrap),
        "slot.exec": lambda: slot.exec("true"),
        "slot.call": call,
    }
    samples: dict[str, list[float]] = {name: [] for name in kinds}
    for round_number in range(max(4, int(60 * scale))):
        for name, kind in kinds.items():
            times = [await _timed(kind) for _ in range(10)]
            if round_number:  # the first round warms up
                samples[name] += times
    for name, times in samples.items():
        report.figures[name] = spread(times)
    bare = statistics.median(samples["bare spawn"])
    for name, limit in (("slot.exec", 2.0), ("slot.call", 2.5)):
        report.bar(f"{name} / bare spawn, p50", statistics.median(samples[name]) / bare, "<=", limit)
    await slot.release()


async def throughput(rig: Rig, report: Report, scale: float) -> None:
    """Calls per second at several numbers of slots, against `xargs`."""
    calls = max(256, int(2000 * scale))
    slots = [await rig.lease() for _ in range(SLOTS)]
    rates: dict[str, list[float]] = {}

    async def work(slot: Slot, count: int) -> None:
        for _ in range(count):
            await slot.exec("true")

    for _ in range(5):
        begin = time.perf_counter()
        await anyio.run_process(
            ["xargs", f"-P{PROCESSORS}", "-I{}", *SHELL], input=b"\n".join([b"x"] * calls), check=True
        )
        rates.setdefault("xargs", []).append(calls / (time.perf_counter() - begin))
        for number in (1, 16, 64):
            count = (calls if number > 1 else calls // 4) // number
            begin = time.perf_counter()
            async with anyio.create_task_group() as tasks:
                for slot in slots[:number]:
                    tasks.start_soon(work, slot, count)
            rates.setdefault(f"{number} slots", []).append(count * number / (time.perf_counter() - begin))
    report.figures["calls per second"] = {name: round(statistics.median(each)) for name, each in rates.items()}
    ratios = [ours / theirs for ours, theirs in zip(rates["64 slots"], rates["xargs"], strict=True)]
    report.bar("calls/s of 64 slots / xargs", statistics.median(ratios), ">=", 0.7)
    report.figures["requests per write"] = {
        "mean": round(_mean_batch(slots[0]), 2),
        "most": max(slots[0].lease.client.sandbox.batch_sizes),
    }
    for slot in slots:
        await slot.release()


def _mean_batch(slot: Slot) -> float:
    sizes = slot.lease.client.sandbox.batch_sizes
    return sum(size * count for size, count in sizes.items()) / max(1, sum(sizes.values()))


async def leases(rig: Rig, report: Report, scale: float) -> None:
    """From asking for a slot to its first result, and back."""
    first, reset = [], []
    for _ in range(max(10, int(100 * scale))):
        begin = time.perf_counter()
        slot = await rig.lease()
        await slot.exec("true")
        first.append(time.perf_counter() - begin)
        reset.append(await _timed(slot.release))
    report.figures["lease to first result"] = spread(first)
    report.figures["reset"] = spread(reset)
    report.bar("lease to first result, p50 in ms", statistics.median(first) * 1000, "<=", 15)
    report.bar("reset of an empty workspace, p50 in ms", statistics.median(reset) * 1000, "<=", 10)


async def memory(rig: Rig, report: Report, scale: float) -> None:
    """Proportional memory of one leased, idle slot: its supervisor and its PID 1."""
    (root,) = (sandbox.pid for sandbox in rig.backend.sandboxes)
    await (await rig.lease()).release()
    before = _tree_pss(root)
    async with AsyncExitStack() as stack:
        for _ in range(SLOTS):
            slot = await rig.lease()
            stack.push_async_callback(slot.release)
            await slot.exec("true")
        await anyio.sleep(0.5)
        each = (_tree_pss(root) - before) / SLOTS / 1e6
    report.figures["memory per leased idle slot"] = {"pss_mb": round(each, 2)}
    report.bar("memory per leased idle slot, PSS in MB", each, "<=", 3)


def _tree_pss(pid: int | None) -> int:
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return total
    return total + sum(_tree_pss(int(child)) for child in children)


async def many(report: Report, scale: float) -> None:
    """The memory of everything when many slots are leased at once, and how long it takes to lease them."""
    async with LocalBackend() as backend, DefaultSlotPool(backend, PoolConfig(MANY)) as pool:
        async with DefaultBatchExecutor() as executor, AsyncExitStack() as stack:
            rig, times = Rig(pool, backend, executor), []
            for _ in range(MANY):
                begin = time.perf_counter()
                slot = await rig.lease()
                await slot.exec("true")
                times.append(time.perf_counter() - begin)
                stack.push_async_callback(slot.release)
            await anyio.sleep(0.5)
            total = sum(_tree_pss(sandbox.pid) for sandbox in backend.sandboxes) / 1e6
    report.figures[f"{MANY} slots at once"] = {**spread(times), "pss_mb": round(total)}
    report.bar(f"{MANY} slots at once, daemon and all, PSS in MB", total, "<=", 600)
    report.bar(f"{MANY} slots at once, lease to first result, p50 in ms", statistics.median(times) * 1000, "<=", 20)


async def files(rig: Rig, report: Report, scale: float) -> None:
    """A large file, there and back."""
    slot, data, times = await rig.lease(), os.urandom(FILE_BYTES), []
    for _ in range(max(3, int(10 * scale))):
        begin = time.perf_counter()
        await slot.write_file("large", data)
        back = await slot.read_file("large")
        times.append(time.perf_counter() - begin)
        assert back == data
    report.figures["50 MB there and back"] = spread(times)
    report.bar("50 MB there and back, p50 in s", statistics.median(times), "<=", 1)
    await slot.release()


async def neighbours(rig: Rig, report: Report, scale: float) -> None:
    """The median call of one slot while another moves a gigabyte."""
    noisy, quiet = await rig.lease(), await rig.lease()
    size = int(1_000_000_000 * max(scale, 0.25))
    block = bytes(250_000_000)

    async def output() -> None:
        await noisy.exec(f"head -c {size} /dev/zero", timeout_s=600)

    async def live_output() -> None:
        await noisy.exec(f"head -c {size} /dev/zero", timeout_s=600, on_output=lambda stream, data: None)

    async def transfer() -> None:
        for _ in range(size // len(block) // 2 or 1):
            await noisy.write_file("block", block)
            await noisy.read_file("block")

    async def sample(into: list[float]) -> None:
        while True:
            into.append(await _timed(lambda: quiet.exec("true")))

    async def during(load: Callable[[], Awaitable[object]]) -> list[float]:
        times: list[float] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sample, times)
            await load()
            tasks.cancel_scope.cancel()
        return times

    calm = await during(lambda: anyio.sleep(1.0))
    report.figures["neighbour: quiet"] = spread(calm)
    for name, load in (("1 GB output", output), ("1 GB live output", live_output), ("1 GB transfer", transfer)):
        begin = time.perf_counter()
        times = await during(load)
        report.figures[f"neighbour: {name}"] = {**spread(times), "took_s": round(time.perf_counter() - begin, 2)}
        delay = statistics.median(times) - statistics.median(calm)
        report.bar(f"delay by {name}, p50 in ms", delay * 1000, "<=", 5)
    await noisy.release()
    await quiet.release()


def command_line(report: Report, scale: float) -> None:
    """How long `hermes --help` takes."""
    script = Path(sys.executable).with_name("hermes")
    boot = "import sys; from hermes_core.cli import main; sys.argv[0] = 'hermes'; main()"
    command = [str(script)] if script.exists() else [sys.executable, "-c", boot]
    times = []
    for _ in range(max(3, int(10 * scale))):
        begin = time.perf_counter()
        done = subprocess.run([*command, "--help"], capture_output=True, check=False)
        times.append(time.perf_counter() - begin)
        if done.returncode:
            report.figures["hermes --help"] = f"failed: {done.stderr.decode()[-200:]!r}"
            return
    report.figures["hermes --help"] = spread(times)
    report.bar("hermes --help, p50 in s", statistics.median(times), "<=", 0.3)


async def measure(scale: float) -> Report:
    """Run everything."""
    report = Report()
    async with _rig() as rig:
        await latency(rig, report, scale)
        await leases(rig, report, scale)
        await memory(rig, report, scale)
        if shutil.which("xargs"):
            await throughput(rig, report, scale)
        await files(rig, report, scale)
        await neighbours(rig, report, scale)
    await many(report, scale)
    command_line(report, scale)
    return report


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="event loop")
    arguments = parser.parse_args()
    report = anyio.run(measure, 0.1 if arguments.quick else 1.0, backend=arguments.backend)
    print(report.as_json() if arguments.json else report.as_table())
    return 0 if report.reached else 1


if __name__ == "__main__":
    sys.exit(main())

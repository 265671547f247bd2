"""What slots on a Nomad cluster cost, and what following the cluster does.

    python benchmarks/cluster.py calls --backend nomad               # a table, and whether each bar is reached
    python benchmarks/cluster.py calls --backend nomad-singularity   # -B image=FOLDER for another image
    python benchmarks/cluster.py starts --backend nomad-singularity  # seconds and memory by number of sandboxes
    python benchmarks/cluster.py changes                             # in the stand-in, whatever else there is
    python benchmarks/cluster.py changes --json                      # the same as JSON

The cluster is that of NOMAD_ADDR, else an agent that is started if `nomad` is on PATH, else the project's stand-in for
one: the table says which. The images are those of the tests. Kinds of calls take turns in short rounds, so that drift
of the machine meets all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from report import Report, spread

from hermes_backend_nomad import NomadConfig, NomadSingularityConfig
from hermes_backend_nomad._address import Address
from hermes_backend_nomad._apptainer_backend import NomadSingularityBackend
from hermes_backend_nomad._changes import Changes
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._docker_backend import NomadBackend
from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.default_plugins.tools import terminal
from hermes_core.execution import DefaultBatchExecutor, Slot, ToolCall
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

sys.path.append(str(Path(__file__).parents[1]))  # the stand-in, and the images, are those of the tests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from hermes_core.sandbox import SandboxBackend

RUNS, ROUNDS, CALLS = 9, 60, 4
COUNTS = (4, 16, 32)
SANDBOXES = 1000
RATES = (0, 10, 50, 100)
SECONDS = 20.0
STORM = 4 * SANDBOXES
"""A start is four changes: placed, received, set up, running."""


@contextmanager
def agent(report: Report, **stand_in: object) -> Iterator[tuple[str, int | None]]:
    """The address of a cluster, and the process of its agent if it is a real one that was started for this."""
    from tests.stand_ins.nomad.fixtures import given_cluster, nomad_binary, running_agent, running_stand_in

    given = given_cluster()
    with ExitStack() as stack:
        process = None
        if stand_in or (given is None and nomad_binary() is None):
            options = stand_in or {"docker_allow_caps": "+sys_admin"}
            cluster = stack.enter_context(running_stand_in(**options)).cluster
        elif given is not None:
            cluster = given
        else:
            own = stack.enter_context(running_agent())
            assert own.process is not None
            cluster, process = own.cluster, own.process.pid
        if cluster.kind == "stand-in":
            report.figures["cluster"] = "the stand-in"
        else:
            version = cluster.call("GET", "/v1/agent/self")["config"]["Version"]["Version"]
            report.figures["cluster"] = f"Nomad {version}"
        yield cluster.address, process


def made(name: str, address: str, settings: dict[str, Any], *, cpu: int) -> NomadBackend | NomadSingularityBackend:
    """A backend with small sandboxes of the images of the tests."""
    from tests.nomad_cluster.images import image_settings

    values = {"nomad_address": address, "sandbox_job_id": "hermes-bench", "memory": 128, "disk": 64}
    # With less than others have, containers would wait for their turn on a machine that is busy.
    values |= {"cpu": cpu, **image_settings(name), **settings}
    if name == "nomad":
        return NomadBackend(NomadConfig.model_validate(values))
    return NomadSingularityBackend(NomadSingularityConfig.model_validate(values))


# Calls


@asynccontextmanager
async def leased(backend: SandboxBackend) -> AsyncIterator[Slot]:
    """One slot of a backend that was entered."""
    async with DefaultSlotPool(backend, PoolConfig(4)) as pool, DefaultBatchExecutor() as executor:
        slot = Slot(await pool.lease(LeaseRequest(wait_s=120)), pool, executor, {"terminal": terminal})
        yield slot
        await slot.release()


async def calls(report: Report, name: str, settings: dict[str, Any]) -> None:
    """The price of a call, against that of the same call of the local backend."""
    with agent(report) as (address, _):
        async with LocalBackend() as local, made(name, address, settings, cpu=1024) as cluster:
            async with leased(local) as here, leased(cluster) as there:
                report.figures["isolation"] = f"local {here.isolation}, {name} {there.isolation}"
                await _compare(report, name, here, there)


async def _compare(report: Report, name: str, here: Slot, there: Slot) -> None:
    call = ToolCall("terminal", {"command": "true"})
    kinds: dict[str, dict[str, Callable[[], Awaitable[object]]]] = {
        "exec": {"local": lambda: here.exec("true"), name: lambda: there.exec("true")},
        "call": {"local": lambda: here.call(call), name: lambda: there.call(call)},
    }
    samples: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {kind: [] for kind in kinds}
    quickest: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(RUNS):
        for kind, ways in kinds.items():
            times = await _in_turns(ways)
            ratios[kind].append(statistics.median(times[name]) / statistics.median(times["local"]))
            quickest[kind].append(_quickest(times[name]) / _quickest(times["local"]))
            for way, taken in times.items():
                samples.setdefault(f"slot.{kind}, {way}", []).extend(taken)
    report.figures |= {what: spread(taken) for what, taken in samples.items()}
    for kind, seen in ratios.items():
        report.figures[f"slot.{kind}, {name} / local"] = "  ".join(f"{each:.2f}" for each in sorted(seen))
        report.figures[f"slot.{kind}, of the quickest tenth of each"] = round(statistics.median(quickest[kind]), 3)
        report.bar(f"slot.{kind}, {name} / local, p50", statistics.median(seen), "<=", 1.3)


def _quickest(times: list[float]) -> float:
    """What a call takes when nothing else wants the processors."""
    return sorted(times)[len(times) // 10]


async def _in_turns(ways: dict[str, Callable[[], Awaitable[object]]]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(ROUNDS + 1):
        for way, call in ways.items():
            for _ in range(CALLS):
                begin = time.perf_counter()
                await call()
                if number:  # the first round warms up
                    times[way].append(time.perf_counter() - begin)
    return times


# Starts


async def starts(report: Report, name: str, settings: dict[str, Any]) -> None:
    """How long it takes until so many sandboxes answer, and what Nomad's own processes take for each of them."""
    with agent(report) as (address, process):
        for count in COUNTS:
            seconds: list[float] = []
            helpers: list[tuple[float, float]] = []
            for _ in range(3 if count < max(COUNTS) else 1):
                async with made(name, address, settings, cpu=200) as backend:
                    begin = time.perf_counter()
                    async with anyio.create_task_group() as tasks:
                        for number in range(count):
                            tasks.start_soon(backend.start, SandboxSpec(slots=1), "bench", str(number))
                    seconds.append(time.perf_counter() - begin)
                    if process is not None:
                        helpers.append(_memory_of_children(process))
                await anyio.sleep(2)
            figure = {"s": round(statistics.median(seconds), 2)}
            if helpers:
                rss, pss = (statistics.median(each) / count for each in zip(*helpers, strict=True))
                figure |= {"helpers_rss_mb_each": round(rss), "helpers_pss_mb_each": round(pss)}
            report.figures[f"{count} sandboxes, all answer"] = figure


def _memory_of_children(pid: int) -> tuple[float, float]:
    """Resident and proportional memory, in MB, of the processes that an agent has besides itself."""
    rss = pss = 0
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for each in child.read_text().split():
            try:
                lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()[1:]
            except OSError:
                continue
            sizes = {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
            rss, pss = rss + sizes["Rss"], pss + sizes["Pss"]
    return rss / 1024, pss / 1024


# Changes


async def changes(report: Report) -> None:
    """The processor time of following a cluster on which 1,000 sandboxes are."""
    with agent(report, mock=SANDBOXES, memory=10**6, cpu=10**6, disk=10**7) as (address, _):
        async with Cluster(Address(address)) as cluster, httpx.AsyncClient(base_url=address, trust_env=False) as http:
            following = Changes(cluster, "mock-")
            watches = [following.watch(f"mock-{number}") for number in range(SANDBOXES)]
            begin, spent = time.perf_counter(), time.process_time()
            async with anyio.create_task_group() as tasks:
                await tasks.start(following.run)
                report.figures[f"learning of {SANDBOXES} at once"] = {
                    "s": round(time.perf_counter() - begin, 2),
                    "cpu_s": round(time.process_time() - spent, 2),
                }
                assert all(watch.allocation is not None for watch in watches)
                for rate in RATES:
                    await _at_rate(report, http, rate)
                await _storm(report, http)
                tasks.cancel_scope.cancel()


async def _told(http: httpx.AsyncClient, **wish: float) -> int:
    answer = (await http.post("/stand-in/mock", json=wish)).raise_for_status()
    return int(answer.json()["changes"])


async def _at_rate(report: Report, http: httpx.AsyncClient, rate: int) -> None:
    before = await _told(http, rate=rate)
    begin, spent = time.perf_counter(), time.process_time()
    await anyio.sleep(SECONDS)
    share = (time.process_time() - spent) / (time.perf_counter() - begin)
    happened = await _told(http, rate=0) - before
    report.figures[f"{rate} changes/s"] = {
        "happened_per_s": round(happened / SECONDS, 1),
        "of_a_core_percent": round(100 * share, 2),
    }
    report.bar(f"{SANDBOXES} sandboxes, {rate} changes/s, share of a core", share, "<=", 0.05)


async def _storm(report: Report, http: httpx.AsyncClient) -> None:
    before = await _told(http, rate=STORM / 10)
    spent = time.process_time()
    await anyio.sleep(10)
    happened = await _told(http, rate=0) - before
    await anyio.sleep(1)
    cpu_s = time.process_time() - spent
    report.figures[f"{STORM} changes, as of {SANDBOXES} starts"] = {
        "happened": happened,
        "cpu_s": round(cpu_s, 2),
        "cpu_us_each": round(cpu_s / happened * 1e6),
    }


async def measure(what: str, backend: str, settings: dict[str, Any]) -> Report:
    """Run one of them."""
    report = Report()
    if what == "changes":
        await changes(report)
    else:
        await (calls if what == "calls" else starts)(report, backend, settings)
    return report


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["calls", "starts", "changes"], help="what is measured")
    parser.add_argument("--backend", choices=["nomad", "nomad-singularity"], default="nomad", help="which backend")
    parser.add_argument("-B", dest="pairs", action="append", default=[], metavar="KEY=VALUE", help="its configuration")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    settings = dict(pair.split("=", 1) for pair in arguments.pairs)
    report = anyio.run(measure, arguments.what, arguments.backend, settings)
    print(report.as_json() if arguments.json else report.as_table())
    return 0 if report.reached else 1


if __name__ == "__main__":
    sys.exit(main())

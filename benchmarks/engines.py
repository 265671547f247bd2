"""What slots in containers cost, against the engines' own exec in the same run.

    python benchmarks/engines.py --engine docker                       # a table, and whether each bar is reached
    python benchmarks/engines.py --engine apptainer -i IMAGE.sif       # as an ordinary user
    python benchmarks/engines.py --engine docker --json                # the same as JSON

Kinds of calls take turns in short rounds, so that drift of the machine meets all of them alike.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from report import Report, spread

from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from hermes_core.sandbox import SandboxBackend

SHELL = ["/bin/sh", "-c", "true"]
SLOTS = 64
CONTAINERS = 4
WAIT_S = 600.0


@dataclass
class Slots:
    """Leases slots of one backend."""

    pool: DefaultSlotPool
    executor: DefaultBatchExecutor

    async def lease(self) -> Slot:
        """Lease one."""
        return Slot(await self.pool.lease(LeaseRequest(wait_s=WAIT_S)), self.pool, self.executor, {})


@asynccontextmanager
async def opened(backend: SandboxBackend, slots: int, containers: int, starting: int = 2) -> AsyncIterator[Slots]:
    """A pool over a backend that was entered."""
    async with DefaultSlotPool(backend, PoolConfig(slots, containers, max_starting=starting)) as pool:
        async with DefaultBatchExecutor() as executor:
            yield Slots(pool, executor)


async def latency(slots: Slots, name: str, own: Callable[[], None], limit: float, report: Report) -> None:
    """The price of one command: in a slot, and by the engine's own exec."""
    slot = await slots.lease()
    ours: list[float] = []
    theirs: list[float] = []
    for round_number in range(16):
        for _ in range(20):
            begin = time.perf_counter()
            await slot.exec("true")
            if round_number:  # the first round warms up
                ours.append(time.perf_counter() - begin)
        for _ in range(5):
            begin = time.perf_counter()
            own()
            if round_number:
                theirs.append(time.perf_counter() - begin)
    report.figures["slot.exec"], report.figures[name] = spread(ours), spread(theirs)
    report.bar(f"{name} / slot.exec, p50", statistics.median(theirs) / statistics.median(ours), ">=", limit)
    await slot.release()


async def throughput(slots: Slots, threads: ThreadPoolExecutor, own: Callable[[], None], report: Report) -> None:
    """Commands per second: in as many slots at once, and by as many threads that exec."""
    leased = [await slots.lease() for _ in range(SLOTS)]
    rates: dict[str, list[float]] = {"slots": [], "docker exec": []}

    async def work(slot: Slot) -> None:
        for _ in range(16):
            await slot.exec("true")

    def exec_all() -> None:
        for done in [threads.submit(own) for _ in range(2 * SLOTS)]:
            done.result()

    await to_thread.run_sync(exec_all)  # which connects
    for _ in range(5):
        begin = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            for slot in leased:
                tasks.start_soon(work, slot)
        rates["slots"].append(16 * SLOTS / (time.perf_counter() - begin))
        begin = time.perf_counter()
        await to_thread.run_sync(exec_all)
        rates["docker exec"].append(2 * SLOTS / (time.perf_counter() - begin))
    report.figures[f"commands per second, {SLOTS} at once"] = {
        name: round(statistics.median(each)) for name, each in rates.items()
    }
    ratios = [ours / theirs for ours, theirs in zip(rates["slots"], rates["docker exec"], strict=True)]
    report.bar(f"{SLOTS} slots / docker exec, commands per second", statistics.median(ratios), ">=", 30)
    for slot in leased:
        await slot.release()


async def start(backend: SandboxBackend, slots: int, containers: int) -> tuple[float, float]:
    """Seconds until a trajectory in each slot had its first result, and the megabytes of memory that all of it takes.

    As many containers are started at once as it likes: what is compared is what they cost.
    """
    before = await settled_mb()
    async with opened(backend, slots, containers, starting=8) as pool, AsyncExitStack() as stack:
        times: list[float] = []
        begin = time.perf_counter()

        async def first() -> None:
            slot = await pool.lease()
            stack.push_async_callback(slot.release)
            assert (await slot.exec("true", timeout_s=WAIT_S)).exit_code == 0
            times.append(time.perf_counter() - begin)

        async with anyio.create_task_group() as tasks:
            for _ in range(slots * containers):
                tasks.start_soon(first)
        return max(times), before - await settled_mb()


async def settled_mb() -> float:
    """What is available once that changes no more: what containers had comes back over seconds."""
    last = available_mb()
    for _ in range(30):
        await anyio.sleep(1)
        now = available_mb()
        if abs(now - last) < 4:
            return now
        last = now
    return last


def available_mb() -> float:
    """What the kernel says is available."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) / 1024


async def shared(backend: SandboxBackend, report: Report) -> None:
    """Many trajectories in few containers, against a container for each."""
    seconds: dict[str, list[float]] = {"few": [], "one each": []}
    megabytes: dict[str, list[float]] = {"few": [], "one each": []}
    for _ in range(3):
        for name, each, containers in (("few", SLOTS // CONTAINERS, CONTAINERS), ("one each", 1, SLOTS)):
            took, used = await start(backend, each, containers)
            seconds[name].append(took)
            megabytes[name].append(used)
    middle = statistics.median
    for name, what in (("few", f"{SLOTS} trajectories in {CONTAINERS} containers"), ("one each", f"in {SLOTS}")):
        report.figures[what] = {"s": round(middle(seconds[name]), 2), "mb": round(middle(megabytes[name]))}
    sooner = [alone / few for alone, few in zip(seconds["one each"], seconds["few"], strict=True)]
    part = [few / alone for alone, few in zip(megabytes["one each"], megabytes["few"], strict=True)]
    report.bar(f"{SLOTS} containers / {CONTAINERS} containers, start", middle(sooner), ">=", 5)
    report.bar(f"{CONTAINERS} containers / {SLOTS} containers, memory", middle(part), "<=", 0.5)


def docker_client() -> Any:  # noqa: ANN401 - the SDK has no types
    """A client of the engine that the environment names."""
    import docker as sdk

    return sdk.APIClient(version="auto", **sdk.utils.kwargs_from_env())


@contextmanager
def docker_exec(image: str) -> Iterator[Callable[[], None]]:
    """Docker's own exec, by the SDK, in a container that sleeps; with a client for each thread that calls it."""
    clients = threading.local()
    with closing(docker_client()) as client:
        made = client.create_container(image, ["sleep", "3600"], host_config=client.create_host_config(init=True))
        try:
            client.start(made)

            def own() -> None:
                if not hasattr(clients, "own"):
                    clients.own = docker_client()
                clients.own.exec_start(clients.own.exec_create(made, SHELL))

            yield own
        finally:
            client.remove_container(made, force=True)


async def docker(image: str | None, report: Report) -> None:
    """Measure the backend `docker`."""
    from hermes_backend_docker import DockerBackend, DockerConfig

    async with DockerBackend(DockerConfig(image=image)) as backend:
        async with opened(backend, SLOTS // CONTAINERS, CONTAINERS) as slots:
            await (await slots.lease()).release()  # the image is there now, whichever it is
            with closing(docker_client()) as client:
                used = client.inspect_container(backend.sandboxes[0].title)["Image"]
            with docker_exec(used) as own:
                await latency(slots, "docker exec", own, 10, report)
                with ThreadPoolExecutor(SLOTS) as threads:
                    await throughput(slots, threads, own, report)
        await shared(backend, report)


@contextmanager
def instance_exec(program: str, image: str) -> Iterator[Callable[[], None]]:
    """Apptainer's own exec, in an instance."""
    name = f"hermes-bench-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        subprocess.run([program, "--silent", "instance", "start", image, name], check=True, stdin=subprocess.DEVNULL)
        stack.callback(subprocess.run, [program, "--silent", "instance", "stop", name], check=False)
        command = [program, "--silent", "exec", f"instance://{name}", *SHELL]
        yield lambda: _run(command)


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


async def apptainer(image: str | None, report: Report) -> None:
    """Measure the backend `singularity`."""
    from hermes_backend_singularity import SingularityBackend, SingularityConfig

    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None or image is None:
        raise SystemExit("this needs apptainer on PATH, and an image: -i IMAGE.sif")
    async with SingularityBackend(SingularityConfig(image=image)) as backend:
        async with opened(backend, SLOTS // CONTAINERS, CONTAINERS) as slots:
            with instance_exec(program, image) as own:
                await latency(slots, "apptainer exec instance://", own, 15, report)


async def measure(engine: str, image: str | None) -> Report:
    """Run everything."""
    report = Report()
    await (docker if engine == "docker" else apptainer)(image, report)
    return report


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["docker", "apptainer"], required=True, help="which engine")
    parser.add_argument("-i", "--image", help="an image with a shell; of docker, by default the reference image")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    report = anyio.run(measure, arguments.engine, arguments.image)
    print(report.as_json() if arguments.json else report.as_table())
    return 0 if report.reached else 1


if __name__ == "__main__":
    sys.exit(main())

"""A run whose cluster loses its leader and a machine in the middle."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from tests.nomad_cluster.agents import Cluster
from tests.nomad_cluster.processes import silenced

from hermes_core import Hermes, ToolCall
from hermes_core.models import AssistantTurn
from hermes_core.observers import Observer
from hermes_envs.arithmetic import ArithmeticEnvironment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.nomad_cluster.agents import Agent

    from hermes_core.environments import Task
    from hermes_core.observers import SandboxStarted, TrajectoryFinished, TrajectoryStarted
    from hermes_core.runs import Run

__all__ = ["Outcome", "Size", "attempt", "run_on_a_cluster"]

GROUP = 4
ASKED = "Nomad is asked at "
PAUSE_S = 1.0
"""Between the loss of the leader and that of the machine: the next leader is being chosen."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a run is.

    Attributes:
        sandboxes: How many there are.
        slots: Slots of each of them, every one of which is in use.
        rounds: Trajectories that each slot has one after the other.
        seconds: What the command of one takes.
    """

    sandboxes: int = 6
    slots: int = 4
    rounds: int = 20
    seconds: float = 2.0

    @property
    def at_once(self) -> int:
        """Trajectories at once."""
        return self.sandboxes * self.slots

    @property
    def tasks(self) -> int:
        """Tasks, each with a group of trajectories."""
        return self.at_once * self.rounds // GROUP


class SlowArithmetic(ArithmeticEnvironment):
    """The same problems, but solving one takes its time.

    Args:
        seconds: That the reference solution sleeps for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def solution(self, task: Task) -> tuple[AssistantTurn, ...]:
        """Sleep, evaluate the expression, then say its value."""
        first, *rest = super().solution(task)
        (call,) = first.tool_calls
        slow = ToolCall(call.name, {"command": f"sleep {self._seconds:g}; {call.arguments['command']}"})
        return (AssistantTurn("", tool_calls=(slow,), finish_reason=first.finish_reason), *rest)


class Diary(Observer, logging.Handler):
    """Writes down when what happened, in seconds since it was made."""

    def __init__(self) -> None:
        logging.Handler.__init__(self, logging.WARNING)
        self._begin = time.monotonic()
        self.finished: list[float] = []
        self.retried: list[float] = []
        self.started: list[tuple[float, str]] = []
        self.lost: list[float] = []
        self.said: list[tuple[float, str]] = []
        self._more = anyio.Event()

    async def wait_finished(self, count: int) -> None:
        """Wait until so many trajectories have ended."""
        while len(self.finished) < count:
            await self._more.wait()

    def now(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begin

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the log."""
        said = record.getMessage()
        self.said.append((self.now(), said))
        if "is lost:" in said or "is replaced" in said:
            self.lost.append(self.now())

    async def sandbox_started(self, event: SandboxStarted) -> None:
        """One more."""
        self.started.append((self.now(), event.name))

    async def trajectory_started(self, event: TrajectoryStarted) -> None:
        """Perhaps once more."""
        if event.attempt:
            self.retried.append(self.now())

    async def trajectory_finished(self, event: TrajectoryFinished) -> None:
        """One less to do."""
        self.finished.append(self.now())
        self._more.set()
        self._more = anyio.Event()

    def longest_gap(self, since: float) -> float:
        """The longest time in which no trajectory ended."""
        times = [since, *(each for each in self.finished if each >= since)]
        return max((later - earlier for earlier, later in pairwise(times)), default=0.0)


@dataclass
class Outcome:
    """What was seen; times are seconds since the run began.

    Attributes:
        times: When what happened.
        run: What became of the trajectories.
        machine: What the cluster says of the machine that was lost, when the run is over.
        said: Warnings of the run.
        left: Jobs and variables that there are once everything was stopped.
    """

    times: dict[str, float | None] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    said: list[tuple[float, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was lost or done twice, and nobody waited for the cluster's verdict on the machine."""
        run = self.run
        return bool(
            run["trajectories"] == run["different"] == run["wanted"]
            and run["failures"] == 0
            and run["mean_reward"] == 1.0
            and self.machine["status"] == "ready"
            and not self.left
        )


class _Attempt:
    """One run, and what is done to its cluster meanwhile."""

    def __init__(self, cluster: Cluster, size: Size, *, silent: bool) -> None:
        self._cluster = cluster
        self._size = size
        self._silent = silent
        self._rules = ExitStack()
        self._victim: Agent | None = None
        self._diary = Diary()
        self._outcome = Outcome()

    async def run(self, backend: str, settings: Mapping[str, object], out: Path) -> Outcome:
        """Make the run, harm the cluster, and tell what was seen."""
        size, diary, logger = self._size, self._diary, logging.getLogger("hermes_core")
        logger.addHandler(diary)
        logging.getLogger("hermes_backend_nomad").addHandler(diary)
        try:
            async with Hermes(backend=backend, backend_config=settings, observers=[diary]) as hermes:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._harm)
                    run = await hermes.run(
                        SlowArithmetic(size.seconds),
                        model="oracle",
                        tasks=size.tasks,
                        group_size=GROUP,
                        concurrency=size.at_once,
                        out=out,
                    )
                    self._mark("run finished")
                await self._tell(run)
            self._mark("everything stopped")
            self._outcome.left = await to_thread.run_sync(self._cluster.left)
        finally:
            logger.removeHandler(diary)
            logging.getLogger("hermes_backend_nomad").removeHandler(diary)
            await to_thread.run_sync(self._rules.close)
        return self._outcome

    def _mark(self, what: str, at: float | None = None) -> None:
        self._outcome.times[what] = round(self._diary.now() if at is None else at, 1)

    async def _harm(self) -> None:
        diary, cluster, wanted = self._diary, self._cluster, self._size.tasks * GROUP
        await diary.wait_finished(wanted // 3)
        self._mark("sandboxes up", max((at for at, _ in diary.started), default=0.0))
        leader = await to_thread.run_sync(cluster.leader)
        victim = self._victim = await to_thread.run_sync(self._most_used)
        hosted = len(self._sandboxes_of(victim))
        await to_thread.run_sync(leader.kill)
        self._mark("leader killed")
        self._outcome.run["address of the killed leader"] = leader.url
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._lose, victim, hosted)
            await to_thread.run_sync(cluster.leader)
            self._mark("next leader known")

    async def _lose(self, victim: Agent, hosted: int) -> None:
        await anyio.sleep(PAUSE_S)
        if self._silent:
            assert victim.facts.dynamic_ports is not None
            await to_thread.run_sync(self._rules.enter_context, silenced(*victim.facts.dynamic_ports))
        self._mark("machine lost")
        ended = await to_thread.run_sync(self._cluster.lose, victim)
        self._outcome.machine |= {"name": victim.name, "sandboxes": hosted, "processes and containers ended": ended}

    def _most_used(self) -> Agent:
        return max(self._cluster.clients, key=lambda client: len(self._sandboxes_of(client)))

    def _sandboxes_of(self, client: Agent) -> list[dict[str, Any]]:
        return [each for each in self._cluster.allocations(client) if each["ClientStatus"] == "running"]

    async def _tell(self, run: Run) -> None:
        diary, said, machine, victim = self._diary, run.statistics, self._outcome.machine, self._victim
        keys = [(each.task_id, each.sample_index) async for each in run.trajectories()]
        assert victim is not None
        lost_at = self._outcome.times["machine lost"] or 0.0
        allocations = await to_thread.run_sync(self._cluster.allocations, victim)
        machine |= {
            "status": (await to_thread.run_sync(self._cluster.node, victim))["Status"],
            "allocations that are said to run": sum(each["ClientStatus"] == "running" for each in allocations),
            "allocations that wait for it": sum(each["ClientStatus"] == "pending" for each in allocations),
        }
        machine["sandboxes in its place"] = sum(at > lost_at for at, _ in diary.started)
        later = [at for at, _ in diary.started if at > lost_at]
        for what, times in (
            ("first sandbox given up", diary.lost[:1]),
            ("last sandbox given up", diary.lost[-1:]),
            ("first trajectory tried again", diary.retried[:1]),
            ("last trajectory tried again", diary.retried[-1:]),
            ("first replacement up", later[:1]),
            ("last replacement up", later[-1:]),
        ):
            if times:
                self._mark(what, times[0])
        self._outcome.run |= {
            "wanted": self._size.tasks * GROUP,
            "trajectories": said.trajectories,
            "different": len(set(keys)),
            "failures": said.failures,
            "mean_reward": said.mean_reward,
            "attempts that were spoiled": said.infrastructure_faults,
            "trajectories that ended within 10 s of the loss": sum(0 <= at - lost_at < 10 for at in diary.finished),
            "longest time without one that ended": round(diary.longest_gap(lost_at), 1),
        }
        async for failed in run.failures():
            self._outcome.run["first failure"] = f"{failed.outcome}: {failed.error}"
            break
        self._outcome.said = [(round(at, 1), line) for at, line in diary.said]
        asked = [line.split()[4] for _, line in diary.said if line.startswith(ASKED)]
        self._outcome.run["agents that were asked later"] = asked


async def attempt(
    cluster: Cluster, backend: str, settings: Mapping[str, object], size: Size, out: Path, *, silent: bool = False
) -> Outcome:
    """Make a run; when a third of it is done, kill the cluster's leader, and then lose a machine with all its tasks.

    Args:
        cluster: Where it runs.
        backend: `nomad` or `nomad-singularity`.
        settings: Of the backend, the address of the cluster included.
        size: Of the run.
        out: Folder of the run.
        silent: Whether nobody is told that the connections of the machine have ended.
    """
    return await _Attempt(cluster, size, silent=silent).run(backend, settings, out)


def run_on_a_cluster(
    nomad: Path, folder: Path, backend: str, settings: Mapping[str, object], size: Size, *, silent: bool = False
) -> Outcome:
    """Start a cluster, make an attempt on it, and end it.

    The run is told of all three servers, and first of the one that is killed for good.

    Args:
        nomad: The program.
        folder: An empty one.
        backend: `nomad` or `nomad-singularity`.
        settings: Of the backend.
        size: Of the run.
        silent: See `attempt`.
    """
    folder.chmod(0o711)
    agents = folder / "agents"
    agents.mkdir(0o711)
    with Cluster(nomad, agents) as cluster:
        leader = cluster.leader()
        others = [server.url for server in cluster.servers if server is not leader]
        named = [leader.url, *others]
        sized = {"slots_per_sandbox": size.slots, "max_sandboxes": size.sandboxes, "nomad_address": named}
        work = partial(attempt, cluster, backend, {**sized, **settings}, size, folder / "out", silent=silent)
        return anyio.run(work)

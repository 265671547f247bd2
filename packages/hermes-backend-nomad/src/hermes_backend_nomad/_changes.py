"""Follows what happens on the cluster over one connection, however many sandboxes there are."""

from __future__ import annotations

import json
import logging
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from anyio import TASK_STATUS_IGNORED, Event

from hermes_backend_nomad._allocation import Allocation, Evaluation
from hermes_backend_nomad._errors import NotFoundError, stream_error
from hermes_backend_nomad._silence import SilentNodes
from hermes_core.exceptions import HermesError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from anyio.abc import TaskStatus

    from hermes_backend_nomad._agent import Agent
    from hermes_backend_nomad._cluster import Cluster

__all__ = ["Changes", "Watch"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

_logger = logging.getLogger(__name__)


class Watch:
    """What the cluster said of one job so far.

    Args:
        job_id: The job.
    """

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._allocations: dict[str, Allocation] = {}
        self.awaited: str | None = None
        """The evaluation that decides whether the job is placed, once that is known."""
        self._evaluations: dict[str, Evaluation] = {}
        self._changed = Event()

    @property
    def allocation(self) -> Allocation | None:
        """The first one: one that takes its place, as after a drain, has another daemon, and is of no use."""
        return next(iter(self._allocations.values()), None)

    @property
    def over(self) -> bool:
        """Whether no processes of the job are left, as far as the cluster knows."""
        return all(allocation.over for allocation in self._allocations.values())

    @property
    def evaluation(self) -> Evaluation | None:
        """The one that is awaited, as soon as it is decided."""
        found = self._evaluations.get(self.awaited or "")
        return found if found is not None and found.status != "pending" else None

    async def change(self) -> None:
        """Wait until something else is known."""
        await self._changed.wait()

    def take(self, news: Allocation | Evaluation) -> None:
        """Learn something; what is older than what is known is dropped."""
        if isinstance(news, Evaluation):
            self._evaluations[news.id] = news
        elif (known := self._allocations.get(news.id)) is None or known.index <= news.index:
            self._allocations[news.id] = news
        else:
            return
        self.wake()

    def wake(self) -> None:
        """Have everybody look who waits for a change."""
        changed, self._changed = self._changed, Event()
        changed.set()


class Changes:
    """Hands what happens on the cluster to those who watch jobs.

    Args:
        cluster: Where it is asked what was missed.
        prefix: What the names of all jobs that are watched begin with.
    """

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster = cluster
        self._prefix = prefix
        # Of others' jobs, which may be many, no line is parsed.
        self._marker = f'"JobID":"{prefix}'.encode()
        self._watches: dict[str, Watch] = {}
        self.silent = SilentNodes()
        """Nodes of which it is known that nothing will be heard."""

    def watch(self, job_id: str) -> Watch:
        """Watch a job until `forget`; begin before it is registered, so that nothing is missed."""
        return self._watches.setdefault(job_id, Watch(job_id))

    def forget(self, watch: Watch) -> None:
        """Watch a job no more; whoever waits for a change is woken a last time."""
        self._watches.pop(watch.job_id, None)
        watch.wake()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Follow the stream for ever; when it breaks, ask what was missed and follow it again.

        Raises:
            HermesError: Before it has started: it cannot be followed at all.
        """
        agents = len(self._cluster.address.agents)
        started = told = False
        refused, pause_s = 0, FIRST_PAUSE_S

        def heard() -> None:
            nonlocal started, told, refused, pause_s
            if not started:
                task_status.started()
            started, told, refused, pause_s = True, False, 0, FIRST_PAUSE_S

        while True:
            try:
                index = await self._catch_up()
            except HermesError as error:
                failure, refused = error, refused + agents  # all of them were asked
            else:
                agent, refused = self._cluster.agent, refused + 1
                failure = await self._follow(agent, index, heard)
                if refused:  # it has said nothing
                    self._cluster.pass_over(agent)
            if not started and refused >= agents:
                raise failure
            if refused > agents and not told:
                told = True
                _logger.warning("nothing is heard of the cluster, which is tried again: %s", failure.message)
            _logger.info("the event stream is opened again: %s", failure.message)
            await anyio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _follow(self, agent: Agent, index: int, heard: Callable[[], None]) -> HermesError:
        """Follow the stream of one agent until it breaks, or another one is in use; return why that is."""
        try:
            with anyio.CancelScope() as following:
                self._cluster.moved = following.cancel
                async for line in self._lines(agent, index):
                    heard()
                    self._read(line)
        except (httpx.HTTPError, OSError) as error:
            return stream_error(error, agent.address)
        why = "it does not answer calls" if following.cancelled_caught else "the stream ended"
        return stream_error(OSError(why), agent.address)

    async def _catch_up(self) -> int:
        """Ask for everything that is watched; return the index of the state that it was."""
        wanted = f'JobID matches "^{self._prefix}"'
        # With resources, since where ports are is among them.
        params = {"filter": wanted, "task_states": "true", "resources": "true"}
        answer = await self._cluster.get("allocations", what="list allocations", params=params)
        # A list is in no order, and of a job's allocations the first is the sandbox.
        for said in sorted(answer.content, key=itemgetter("CreateIndex")):
            if (watch := self._watches.get(said["JobID"])) is not None:
                watch.take(Allocation.of(said))
        for watch in list(self._watches.values()):
            if watch.awaited is not None and watch.evaluation is None:
                await self._evaluate(watch, watch.awaited)
        return answer.index

    async def _evaluate(self, watch: Watch, evaluation: str) -> None:
        try:
            answer = await self._cluster.get("evaluation", evaluation, what="look at an evaluation")
        except NotFoundError:
            return
        watch.take(Evaluation.of(answer.content))

    async def _lines(self, agent: Agent, index: int) -> AsyncGenerator[bytes, None]:
        address = agent.address
        params: dict[str, Any] = {"topic": ["Allocation", "Evaluation"], "index": index + 1}
        params |= {"namespace": address.namespace} | ({"region": address.region} if address.region else {})
        async with (
            agent.stream_client() as client,
            client.stream("GET", "/v1/event/stream", params=params) as answer,
        ):
            if answer.is_error:
                await answer.aread()
            answer.raise_for_status()
            yield b"{}"
            rest = b""
            async for piece in answer.aiter_raw():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line

    def _read(self, line: bytes) -> None:
        if self._marker not in line:
            return
        try:
            self._take(json.loads(line))
        except (LookupError, TypeError, ValueError) as error:
            _logger.warning("an event of the cluster is not understood: %r", error)

    def _take(self, said: dict[str, Any]) -> None:
        for event in said.get("Events") or ():
            payload = event["Payload"]
            if event["Topic"] == "Allocation":
                if (watch := self._watches.get(payload["Allocation"]["JobID"])) is not None:
                    watch.take(Allocation.of(payload["Allocation"]))
            elif event["Topic"] == "Evaluation":
                if (watch := self._watches.get(payload["Evaluation"]["JobID"])) is not None:
                    watch.take(Evaluation.of(payload["Evaluation"]))

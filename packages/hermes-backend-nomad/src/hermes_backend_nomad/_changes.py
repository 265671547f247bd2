"""Follows what happens on the cluster over one connection, however many sandboxes there are."""

from __future__ import annotations

import json
import logging
import os
import ssl
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
    from collections.abc import AsyncIterator

    from anyio.abc import TaskStatus

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._cluster import Cluster

__all__ = ["Changes", "Watch"]

SILENCE_S = 35.0
"""The stream has a heartbeat every ten seconds; without one for so long it is cut."""
CONNECT_S = 10.0
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
        self.connections = 0
        """How often the stream was opened."""

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
        started, pause_s = False, FIRST_PAUSE_S
        async with _client(self._cluster.address) as client:
            while True:
                try:
                    index = await self._catch_up()
                    async for line in self._lines(client, index):
                        if not started:
                            task_status.started()
                        started, pause_s = True, FIRST_PAUSE_S
                        self._read(line)
                except (httpx.HTTPError, OSError) as error:
                    failure: HermesError = stream_error(error, self._cluster.address)
                except HermesError as error:
                    failure = error
                else:
                    failure = stream_error(OSError("the stream ended"), self._cluster.address)
                if not started:
                    raise failure
                _logger.info("the event stream is opened again: %s", failure.message)
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

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

    async def _lines(self, client: httpx.AsyncClient, index: int) -> AsyncIterator[bytes]:
        address = self._cluster.address
        params: dict[str, Any] = {"topic": ["Allocation", "Evaluation"], "index": index + 1}
        params |= {"namespace": address.namespace} | ({"region": address.region} if address.region else {})
        name = {"sni_hostname": address.server_name} if address.server_name else {}
        async with client.stream("GET", "/v1/event/stream", params=params, extensions=name) as answer:
            if answer.is_error:
                await answer.aread()
            answer.raise_for_status()
            self.connections += 1
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


def _client(address: Address) -> httpx.AsyncClient:
    # python-nomad's stream is a thread that cannot be cancelled, and that a broken connection ends without a word.
    return httpx.AsyncClient(
        base_url=address.url,
        headers={"Accept-Encoding": "identity"} | ({"X-Nomad-Token": address.token} if address.token else {}),
        auth=address.login,
        verify=_trust(address),
        trust_env=not address.here,
        timeout=httpx.Timeout(CONNECT_S, read=SILENCE_S),
    )


def _trust(address: Address) -> ssl.SSLContext | bool:
    if not address.url.startswith("https:"):
        return True
    # Authorities that are named are trusted instead of this machine's, not besides them.
    file, folder = _as_file_or_folder(address.authorities) if isinstance(address.authorities, str) else (None, None)
    context = ssl.create_default_context(cafile=file, capath=folder)
    if address.authorities is False:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if address.certificate is not None:
        context.load_cert_chain(*address.certificate)
    return context


def _as_file_or_folder(path: str) -> tuple[str | None, str | None]:
    return (None, path) if os.path.isdir(path) else (path, None)

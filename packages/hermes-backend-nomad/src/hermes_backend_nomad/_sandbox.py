"""One sandbox on the cluster."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from hermes_backend_nomad._belongings import remove_job
from hermes_backend_nomad._certificates import SERVER_NAME, client_context
from hermes_backend_nomad._errors import NotFoundError
from hermes_backend_nomad._failures import last_lines
from hermes_backend_nomad._sandbox_job import TASK
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import SandboxClient, connect_tcp

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from hermes_backend_nomad._allocation import Allocation
    from hermes_backend_nomad._changes import Changes, Watch
    from hermes_backend_nomad._cluster import Cluster
    from hermes_backend_nomad._secrets import SandboxSecrets

__all__ = ["STOP_S", "NomadSandbox"]

STOP_S = 13.0
"""What a stop takes at most, with or without an agent that answers: a pool waits for 15 seconds."""
END_S = 8.0
PURGE_S = 2.0
"""What is left of the stop for forgetting the job."""
LEAVE_S = 5.0
CLEAN_S = 5.0
"""A daemon that was stopped by force, with its connections, says nothing at all."""

_logger = logging.getLogger(__name__)


class NomadSandbox:
    """A job of its own, and the way to the daemon in its allocation.

    Its own connection is what counts first: an agent that is started anew, or a server that believes its node to be
    lost, takes nothing away from a daemon that answers.

    Args:
        name: Unique among the owner's sandboxes.
        capacity: How many slots it hosts.
        cluster: Where its job is.
        changes: Where `watch` is from.
        watch: Of its job.
        secrets: Of its job.
        kept: Whether it stays for other runs when it is stopped.
        idle_end_s: Seconds without anybody after which it ends by itself.
    """

    def __init__(
        self,
        name: str,
        capacity: int,
        cluster: Cluster,
        changes: Changes,
        watch: Watch,
        secrets: SandboxSecrets,
        *,
        kept: bool,
        idle_end_s: float,
    ) -> None:
        self._name = name
        self._capacity = capacity
        self._cluster = cluster
        self._changes = changes
        self._watch = watch
        self._secrets = secrets
        self._kept = kept
        self._idle_end_s = idle_end_s
        self._tls = client_context(secrets.client) if secrets.client else None
        self._stopping = anyio.Lock()
        self._stopped = False
        self._why: str | None = None

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""
        return self._name

    @property
    def capacity(self) -> int:
        """How many slots it hosts."""
        return self._capacity

    @property
    def token(self) -> str:
        """The token to say hello with."""
        return self._secrets.token

    @property
    def job_id(self) -> str:
        """Its job."""
        return self._watch.job_id

    @property
    def allocation_id(self) -> str | None:
        """Its allocation."""
        return self._watch.allocation.id if self._watch.allocation is not None else None

    @property
    def stopped(self) -> bool:
        """Whether it was stopped."""
        return self._stopped

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        allocation = self._watch.allocation
        if self._stopped or allocation is None or allocation.status in ("complete", "failed"):
            raise SandboxLostError(await self.alive() or f"sandbox {self.name} is nowhere")
        assert allocation.endpoint is not None
        host, port = allocation.endpoint
        return await connect_tcp(host, port, tls=self._tls, server_name=SERVER_NAME if self._tls else None)

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        if self._stopped:
            return f"sandbox {self.name} was stopped"
        allocation = self._watch.allocation
        dying = allocation.dying if allocation is not None else None
        if allocation is None or dying is None:
            return None
        if self._why is None:
            said = "" if allocation.status == "lost" else await self._last_words(allocation.id)
            self._why = f"sandbox {self.name} is gone: {dying}{': ' + said if said else ''}"
        return self._why

    async def _last_words(self, allocation: str) -> str:
        """The last lines that its task wrote to standard error, on one line; empty if there are none."""
        return " | ".join(last_lines(await self._cluster.standard_error(allocation, TASK)))

    async def report_end(self) -> None:
        """Wait until the cluster says that it ends, and say why: its daemon only says that it was told to."""
        while not self._stopped and ((allocation := self._watch.allocation) is None or allocation.dying is None):
            await self._watch.change()
        if not self._stopped and not self._stopping.statistics().locked:
            _logger.warning("%s", await self.alive())

    async def stop(self) -> None:
        """End it and all that is in it, or leave it to others if it is kept; idempotent.

        It takes no longer than `STOP_S`: what could not be removed by then is named in the log, and ends by itself.
        """
        await self._stop(kept=self._kept)

    async def end(self) -> None:
        """End it and all that is in it, kept or not; idempotent; as `stop`."""
        await self._stop(kept=False)

    async def _stop(self, *, kept: bool) -> None:
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._stopped:
                    return
                until = anyio.current_time() + STOP_S
                left = kept and await self._left(until)
                self._stopped = True
                if not left:
                    await self._remove(until)
                self._changes.forget(self._watch)

    async def _remove(self, until: float) -> None:
        try:
            # Not purged at once: of an allocation whose job is gone, nobody says when its processes are.
            await self._cluster.delete("job", self.job_id, what=f"end the job {self.job_id}", until=until)
            await self._wait_gone(until - PURGE_S)
            await remove_job(self._cluster, self.job_id, until)
        except HermesError as error:
            _logger.warning(
                "the job %s is left: its sandbox ends by itself within %g s, and the next run, or hermes sandbox "
                "cleanup, removes the job: %s",
                self.job_id,
                self._idle_end_s,
                error.message,
            )

    async def _left(self, until: float) -> bool:
        """Give its slots back and say that nobody has it; false if it is of no use to others."""
        try:
            with anyio.fail_after(CLEAN_S):
                clean = await self.alive() is None and await self.is_clean()
            return clean and await self._secrets.taken_by("", self._cluster, until) is not None
        except TimeoutError:
            _logger.info("the sandbox %s is not kept: its daemon does not answer", self.name)
        except HermesError as error:
            _logger.info("the sandbox %s is not kept: %s", self.name, error.message)
        return False

    async def is_clean(self) -> bool:
        """Whether every slot was given back and reset."""
        client = SandboxClient(self, reconnect_s=LEAVE_S)
        async with background_tasks() as tasks:
            await tasks.start(client.run)
            slots = ((await client.request("health", {})).result or {})["slots"]
            await client.leave()
        return bool(slots == {})

    async def _wait_gone(self, until: float) -> None:
        """Wait until its processes are gone, which takes the node a moment, unless it answers no more."""
        enough = anyio.current_time() + END_S
        with anyio.CancelScope(deadline=min(enough, until)):
            while not self._watch.over:
                await self._watch.change()
        if self._watch.over or enough > until or (allocation := self._watch.allocation) is None:
            return
        if await self._known(allocation, until):
            self._changes.silent.note(allocation)

    async def _known(self, allocation: Allocation, until: float) -> bool:
        """Whether the cluster still knows of it; when somebody else has purged its job, its node has nothing to say."""
        what = "look at an allocation"
        try:
            await self._cluster.get("allocation", allocation.id, what=what, patience_s=0, until=until)
        except NotFoundError:
            return False
        except HermesError:
            pass
        return True

"""Starts sandboxes on a cluster: takes over warm ones, places new ones, and leaves nothing of those that fail."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from hermes_backend_nomad._belongings import remove_job
from hermes_backend_nomad._placement import answering, place
from hermes_backend_nomad._rendering import plan_of
from hermes_backend_nomad._sandbox import STOP_S, NomadSandbox
from hermes_backend_nomad._secrets import SandboxSecrets
from hermes_backend_nomad._silence import SilentNodeError, avoiding
from hermes_backend_nomad._warm import take_over
from hermes_core.exceptions import HermesError, NoCapacityError, SandboxLostError
from hermes_core.sandbox import MissingFolders, check_isolation, require_slots

if TYPE_CHECKING:
    from hermes_backend_nomad._allocation import Allocation
    from hermes_backend_nomad._changes import Changes, Watch
    from hermes_backend_nomad._cluster import Cluster
    from hermes_backend_nomad._config import ClusterSettings
    from hermes_backend_nomad._holders import Holder
    from hermes_backend_nomad._rendering import JobRenderer
    from hermes_backend_nomad._sandbox_job import SandboxPlan
    from hermes_core.sandbox import SandboxSpec

__all__ = ["Launcher"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts the sandboxes of one backend.

    Attributes:
        backend: The backend's name.
        settings: Its settings.
        prefix: What the names of all its jobs begin with.
        cluster: Where they are placed.
        changes: Tells what becomes of them.
        holder: Whose lease they live by.
        renderer: Writes their jobs.
        missing: Folders that images of theirs do not have.
    """

    backend: str
    settings: ClusterSettings
    prefix: str
    cluster: Cluster
    changes: Changes
    holder: Holder
    renderer: JobRenderer
    missing: MissingFolders = field(default_factory=MissingFolders)

    async def launch(self, spec: SandboxSpec, owner: str, name: str, isolation: str) -> NomadSandbox:
        """Start a sandbox, or take over a warm one, and wait until it answers; cancelling leaves nothing behind.

        It is placed on nodes that answer; on others if there is no room there: perhaps they answer again.

        Args:
            spec: What it is made of.
            owner: Whose it is.
            name: Unique among the owner's sandboxes.
            isolation: Level that its daemon is asked for.

        Raises:
            NoCapacityError: No node takes it.
            BackendUnavailableError: It cannot be started at all.
            SandboxLostError: It did not come up.
        """

        def plan() -> SandboxPlan:
            return plan_of(spec, owner, name, prefix=self.prefix, holder=self.holder.name, isolation=isolation)

        if not self.settings.purge_job_on_shutdown and (warm := await self._take_warm(plan())) is not None:
            return warm
        while True:
            avoided = self.changes.silent.now()
            try:
                return await self._place(plan(), avoided)
            except SilentNodeError as error:
                _logger.info("a sandbox is started elsewhere: %s", error.message)
            except NoCapacityError as full:
                if not avoided:
                    raise
                try:
                    return await self._place(plan(), frozenset())
                except SilentNodeError as error:
                    raise NoCapacityError(f"{full.message}; {error.message}", hint=error.hint) from full

    async def _place(self, plan: SandboxPlan, avoided: frozenset[str]) -> NomadSandbox:
        job = avoiding(self.renderer.render(plan), avoided)
        watch = self.changes.watch(plan.job_id)
        sandbox: NomadSandbox | None = None
        try:
            secrets = SandboxSecrets.make(plan.variable, self.holder.name, tls=self.settings.tls)
            with anyio.fail_after(self.settings.start_deadline_s):
                secrets = await secrets.write(self.cluster)
                await place(self.cluster, watch, self.changes.silent, job)
                sandbox = self._sandbox(plan, watch, secrets)
                await self._look_at(sandbox, watch, plan.image)
        except BaseException as error:
            await self._abandon(plan.job_id, sandbox)
            self.changes.forget(watch)
            if isinstance(error, TimeoutError):
                raise self._too_late(plan, watch.allocation) from None
            raise
        return sandbox

    async def _take_warm(self, plan: SandboxPlan) -> NomadSandbox | None:
        taken = await take_over(self.cluster, self.prefix, self.renderer.fingerprint(plan), self.holder)
        if taken is None:
            return None
        watch = self.changes.watch(taken.job_id)
        watch.take(taken.allocation)
        sandbox = self._sandbox(plan, watch, taken.secrets)
        try:
            with anyio.fail_after(self.settings.start_deadline_s):
                await self._look_at(sandbox, watch, plan.image)
                if not await sandbox.is_clean():
                    # Somebody uses it, who could not renew a lease; or did, and it ends by itself.
                    _logger.warning("the warm sandbox %s is in use, and is not taken over", taken.job_id)
                    await taken.secrets.taken_by(taken.before, self.cluster)
                    self.changes.forget(watch)
                    return None
        except (HermesError, TimeoutError) as error:
            _logger.warning("the warm sandbox %s is of no use, and is ended: %s", taken.job_id, error)
            await self._abandon(taken.job_id, sandbox)
            return None
        except BaseException:
            await sandbox.stop()
            raise
        _logger.info("took over the warm sandbox %s", taken.job_id)
        return sandbox

    def _sandbox(self, plan: SandboxPlan, watch: Watch, secrets: SandboxSecrets) -> NomadSandbox:
        kept = not self.settings.purge_job_on_shutdown
        return NomadSandbox(
            *(plan.name, plan.slots, self.cluster, self.changes, watch, secrets),
            kept=kept,
            idle_end_s=self.settings.idle_end_s,
        )

    async def _look_at(self, sandbox: NomadSandbox, watch: Watch, image: str | None) -> None:
        """Wait until it answers, and see that its slots are isolated well enough."""
        facts = await answering(self.cluster, watch, sandbox)
        require_slots(facts.obstacle, "on the nodes")
        check_isolation(facts.isolation, self.settings.require_isolation, self.backend)
        self.missing.warn(facts.missing, image)

    async def _abandon(self, job_id: str, sandbox: NomadSandbox | None) -> None:
        with anyio.CancelScope(shield=True):
            try:
                if sandbox is not None:
                    await sandbox.end()
                else:
                    await remove_job(self.cluster, job_id, anyio.current_time() + STOP_S)
            except HermesError as error:
                _logger.warning("the job %s may be left, and will be swept: %s", job_id, error.message)

    def _too_late(self, plan: SandboxPlan, allocation: Allocation | None) -> SandboxLostError:
        within = f"sandbox {plan.name} did not answer within {self.settings.start_deadline_s:g} s"
        return SandboxLostError(f"{within}: {_seen(allocation)}", hint=_slow(allocation))


def _slow(allocation: Allocation | None) -> str:
    if allocation is None or allocation.status != "running" or allocation.endpoint is None:
        return "if it takes so long to pull its image: -B start_deadline_s=SECONDS"
    host, port = allocation.endpoint
    return f"see that {host}:{port} can be reached from here: a firewall, or network_interface of that node's agent"


def _seen(allocation: Allocation | None) -> str:
    if allocation is None:
        return "Nomad has not placed it"
    said = allocation.events[-1] if allocation.events else None
    return f"{allocation.status} on node {allocation.node}" + (f", {said.kind}: {said.text}" if said else "")

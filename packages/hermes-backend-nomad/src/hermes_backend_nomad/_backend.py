"""What the backends `nomad` and `nomad-singularity` have in common: everything but the job."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio

from hermes_backend_nomad._address import find_address
from hermes_backend_nomad._belongings import survey, sweep
from hermes_backend_nomad._changes import Changes
from hermes_backend_nomad._cluster import Cluster
from hermes_backend_nomad._holders import Holder
from hermes_backend_nomad._launching import Launcher
from hermes_backend_nomad._rendering import JobRenderer, plan_of
from hermes_backend_nomad._warm import purge_warm
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import BackendUnavailableError, HermesError, SandboxLostError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from anyio.abc import TaskStatus

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._config import ClusterSettings
    from hermes_backend_nomad._job import Job
    from hermes_backend_nomad._sandbox import NomadSandbox
    from hermes_backend_nomad._sandbox_job import SandboxPlan
    from hermes_core.sandbox import Sandbox, SandboxInfo

__all__ = ["ClusterBackend"]

BUILT = "dockerfile:"
"""Begins the names of images that tasks bring as a folder with a Dockerfile."""

_logger = logging.getLogger(__name__)


class ClusterBackend(ABC):
    """Starts each sandbox as a job of its own on a Nomad cluster.

    Args:
        config: Its settings.
    """

    name: ClassVar[str]

    def __init__(self, config: ClusterSettings) -> None:
        self._settings = config
        self._prefix = f"{config.sandbox_job_id}-"
        self._launcher: Launcher | None = None
        self._sandboxes: set[NomadSandbox] = set()

    # What a driver is about

    @abstractmethod
    async def _prepare(self, address: Address, *, build: bool) -> str:
        """Have ready what sandboxes are started from; an image that only has to be there if it is to be used, too.

        Returns:
            The identity of the image, if it may be another one tomorrow by the same name, and that is known here.
        """

    @abstractmethod
    def _job(self, address: Address, plan: SandboxPlan) -> Job:
        """Return the job of a sandbox; `_prepare` was called."""

    def _isolation(self) -> str:
        """Return the level that daemons are asked for."""
        return self._settings.isolation

    def _weaker(self, error: HermesError) -> bool:
        """Whether the next sandbox is asked for with less, since this error has shown that there is no more."""
        del error
        return False

    # The backend's life

    @property
    def sandboxes(self) -> tuple[NomadSandbox, ...]:
        """Those that were started and not stopped."""
        return tuple(sandbox for sandbox in self._sandboxes if not sandbox.stopped)

    @property
    def changes(self) -> Changes:
        """What follows the cluster's events."""
        return self._changes

    async def __aenter__(self) -> Self:
        """Connect to the cluster, sweep what dead runs left on it, and take a lease of our own.

        Raises:
            BackendUnavailableError: It cannot be reached, or used; the hint says what to change.
            ConfigError: A setting makes no sense.
        """
        async with AsyncExitStack() as stack:
            address = find_address(self._settings)
            cluster = await stack.enter_async_context(Cluster(address))
            identity = await self._prepare(address, build=True)
            renderer = JobRenderer(self._settings, partial(self._job, address), identity)
            await renderer.read_users(address)
            renderer.render(self._example(SandboxSpec(1)))  # what cannot be rendered is said now
            holder = await stack.enter_async_context(_lease(cluster, self._settings.lease_ttl_s))
            await sweep(cluster, self._prefix, None, holder)
            if self._settings.purge_job_on_start:
                await purge_warm(cluster, self._prefix, holder)
            self._changes = Changes(cluster, self._prefix)
            self._tasks = await stack.enter_async_context(background_tasks())
            await self._follow(stack)
            self._tasks.start_soon(holder.keep)
            stack.push_async_callback(self._stop_all)
            self._launcher = Launcher(self.name, self._settings, self._prefix, cluster, self._changes, holder, renderer)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every sandbox that was started and not stopped."""
        self._launcher = None
        await self._stack.aclose()

    async def _follow(self, stack: AsyncExitStack) -> None:
        """Follow the cluster until everything is stopped, even if whoever uses this is cancelled."""
        following = anyio.CancelScope()

        async def follow(*, task_status: TaskStatus[None]) -> None:
            with following:
                await self._changes.run(task_status=task_status)

        stack.callback(following.cancel)
        await self._tasks.start(follow)
        # Without it nobody would hear that what is stopped has ended, and its node would be blamed.
        following.shield = True

    async def _stop_all(self) -> None:
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as stopping:
                for sandbox in self._sandboxes:  # those too that somebody else stops: they are waited for
                    stopping.start_soon(_stop, sandbox)

    # Starting

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one sandbox, or take over a warm one; cancelling leaves nothing behind."""
        if self._launcher is None:
            raise BackendUnavailableError(f"the backend {self.name!r} was not entered")
        if spec.image is not None and spec.image.startswith("-"):
            raise SandboxLostError(f"{spec.image!r} is no image")
        if spec.image is not None and spec.image.startswith(BUILT):
            raise SandboxLostError(
                f"the image {spec.image} is built where it is used, and nodes do not have it",
                hint="push it to a registry that the nodes reach, and name its tag; or use --backend docker",
            )
        try:
            sandbox = await self._launch(self._launcher, spec, owner, name)
        except BackendUnavailableError as error:
            if spec.image is None:
                raise
            # One task's trouble, and no reason to refuse the others.
            raise SandboxLostError(error.message, hint=error.hint) from error
        self._sandboxes = {known for known in self._sandboxes if not known.stopped}
        self._sandboxes.add(sandbox)
        self._tasks.start_soon(sandbox.report_end)
        return sandbox

    async def _launch(self, launcher: Launcher, spec: SandboxSpec, owner: str, name: str) -> NomadSandbox:
        try:
            return await launcher.launch(spec, owner, name, self._isolation())
        except BackendUnavailableError as error:
            if not self._weaker(error):
                raise
            return await launcher.launch(spec, owner, name, self._isolation())

    # Looking

    async def job_specification(self) -> dict[str, Any]:
        """Return the job of a sandbox as it would be registered, without registering anything.

        Raises:
            BackendUnavailableError: HCL is to be merged, and no agent translates it.
            ConfigError: A setting makes no sense.
        """
        address = find_address(self._settings)
        await self._prepare(address, build=False)
        renderer = JobRenderer(self._settings, partial(self._job, address), "")
        await renderer.read_users(address)
        return renderer.render(self._example(SandboxSpec(self._settings.slots_per_sandbox)))

    def _example(self, spec: SandboxSpec) -> SandboxPlan:
        return plan_of(spec, "OWNER", "NAME", prefix=self._prefix, holder="", isolation=self._isolation())

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what everyone has under the same `sandbox_job_id`."""
        async with Cluster(find_address(self._settings)) as cluster:
            found = await survey(cluster, self._prefix)
        return [each.info for each in found if owner in (None, each.info.owner)]

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Remove the jobs and variables that dead runs left, and return whose they were."""
        async with (
            Cluster(find_address(self._settings)) as cluster,
            _lease(cluster, self._settings.lease_ttl_s) as holder,
        ):
            return await sweep(cluster, self._prefix, owner, holder)


@asynccontextmanager
async def _lease(cluster: Cluster, ttl_s: float) -> AsyncIterator[Holder]:
    """A holder whose lease begins, and ends in the end; whoever needs it for long renews it."""
    holder = Holder(cluster, ttl_s)
    await holder.renew()
    try:
        yield holder
    finally:
        with anyio.CancelScope(shield=True):
            try:
                await holder.end()
            except HermesError as error:
                _logger.warning("the lease of this run is left, and will run out: %s", error.message)


async def _stop(sandbox: NomadSandbox) -> None:
    try:
        await sandbox.stop()
    except Exception:
        _logger.exception("the job %s is left, and will be swept", sandbox.job_id)

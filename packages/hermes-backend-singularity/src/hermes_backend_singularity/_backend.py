"""The backend `singularity`."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self, TypeVar

from anyio import CapacityLimiter, to_thread

from hermes_backend_singularity._command import RUNTIME_INSIDE, Launch
from hermes_backend_singularity._config import TASK, SingularityConfig
from hermes_backend_singularity._diagnosis import diagnose
from hermes_backend_singularity._engine import find_engine
from hermes_backend_singularity._images import HINT as IMAGE_HINT
from hermes_backend_singularity._images import ImageStore, sweep_images
from hermes_backend_singularity._places import (
    CACHE_SETTING,
    SCRATCH_SETTING,
    cache_folder,
    is_ours,
    make_private,
    scratch_folder,
)
from hermes_backend_singularity._sandbox import SingularitySandbox
from hermes_backend_singularity._state import RunFolder, clean_up, inspect, sweep
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import Capabilities, MissingFolders, StartedSandboxes, portable_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_core.diagnosis import Finding
    from hermes_core.sandbox import Sandbox, SandboxInfo, SandboxSpec

__all__ = ["SingularityBackend"]

START_S = 60.0
THREADS = 4
RUNS, IMAGES = "runs", "images"

T = TypeVar("T")


class SingularityBackend:
    """Starts Apptainer containers on this machine, as an ordinary user.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = SingularityConfig
    name: ClassVar[str] = "singularity"

    def __init__(self, config: SingularityConfig | None = None) -> None:
        self._config = config or SingularityConfig()
        self._images: ImageStore | None = None
        self._launch: Launch | None = None
        self._sandboxes = StartedSandboxes[SingularitySandbox]("container", START_S)
        self._missing = MissingFolders()

    @property
    def config(self) -> SingularityConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Namespaces, or nothing if that is asked for by name: the daemon is no root, and has no other users."""
        return Capabilities(isolation=("namespaces", "none"), image_per_task=True, gpu=self._config.nv)

    @property
    def sandboxes(self) -> tuple[SingularitySandbox, ...]:
        """The containers that were started and not stopped."""
        return tuple(self._sandboxes)

    @staticmethod
    def diagnose() -> Iterator[Finding]:
        """Say whether containers can be started here, for `hermes doctor`."""
        return diagnose()

    async def __aenter__(self) -> Self:
        """Find the engine, and have the image and the runtime of the daemon ready.

        Raises:
            BackendUnavailableError: Containers cannot be started here; the hint says what to change.
            ConfigError: There is no such image.
        """
        if os.geteuid() == 0:
            raise BackendUnavailableError(
                "the backend 'singularity' does not run as root",
                hint="run Hermes as an ordinary user (runuser -u USER -- hermes …), or use another backend",
            )
        engine = find_engine(self._config.executable)
        self._limiter = CapacityLimiter(THREADS)
        scratch = scratch_folder(self._config)
        self._runs = await self._in_thread(partial(_private, scratch, RUNS))
        images = await self._in_thread(partial(_private, scratch, IMAGES))
        await self._in_thread(partial(sweep, self._runs))
        await self._in_thread(partial(sweep_images, images))
        async with AsyncExitStack() as stack:
            self._images = ImageStore(engine, self._cache, images, unpack=self._config.unpack)
            stack.callback(self._images.close)
            runtime = await self._in_thread(partial(portable_runtime, RUNTIME_INSIDE))
            self._launch = Launch(engine, runtime, self._config)
            if self._config.image != TASK:
                await self._image(self._images, None)
            self._tasks = await stack.enter_async_context(background_tasks())
            stack.push_async_callback(self._sandboxes.stop_all)
            self._life = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every container that was started and not stopped."""
        await self._life.aclose()

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one container; cancelling leaves nothing behind."""
        if self._images is None or self._launch is None:
            raise BackendUnavailableError("the backend 'singularity' was not entered")
        image = await self._image(self._images, spec.image)
        try:
            folder = RunFolder(self._runs, owner, name)
        except OSError as error:
            raise BackendUnavailableError(
                f"the folder of sandbox {name} cannot be made in {self._runs}: {error.strerror}",
                hint=f"choose another: -B {SCRATCH_SETTING}=FOLDER",
            ) from error
        sandbox = SingularitySandbox(name, spec.slots, folder, self._in_thread)
        async with self._sandboxes.starting(sandbox):
            asked_for = spec.image is not None
            await sandbox.spawn(self._launch.daemon(image, folder, spec.slots, asked_for=asked_for))
            self._tasks.start_soon(sandbox.drain)
            self._missing.warn((await sandbox.wait_ready()).missing, spec.image)
        return sandbox

    async def _image(self, images: ImageStore, wanted: str | None) -> Path:
        """Where containers are started from: of the image of whoever leases, the configured one, or the reference."""
        name = wanted or self._config.image
        if name == TASK:
            raise BackendUnavailableError("this task brings no image", hint=f"-B image=…: {IMAGE_HINT}")
        return await (images.reference(self._config.base_image) if name is None else images.prepare(name))

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what every run of this user has on this machine, by the folders."""
        runs = self._existing_runs()
        return await to_thread.run_sync(inspect, runs, owner) if runs is not None else ()

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """End and remove what dead owners left on this machine, and return whose it was."""
        runs = self._existing_runs()
        return await to_thread.run_sync(clean_up, runs, owner) if runs is not None else ()

    def _existing_runs(self) -> Path | None:
        scratch = scratch_folder(self._config)
        return (
            scratch / RUNS if is_ours(scratch, SCRATCH_SETTING) and is_ours(scratch / RUNS, SCRATCH_SETTING) else None
        )

    def _cache(self) -> Path:
        return make_private(cache_folder(self._config), CACHE_SETTING)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await to_thread.run_sync(function, limiter=self._limiter)


def _private(scratch: Path, name: str) -> Path:
    folder = make_private(make_private(scratch, SCRATCH_SETTING) / name, SCRATCH_SETTING)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise BackendUnavailableError(
            f"no program may be run from {scratch} (it is mounted noexec)",
            hint=f"choose another folder: -B {SCRATCH_SETTING}=FOLDER",
        )
    return folder

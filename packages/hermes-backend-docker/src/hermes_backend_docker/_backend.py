"""The backend `docker`."""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar, Self

from anyio import to_thread

from hermes_backend_docker._config import DockerConfig
from hermes_backend_docker._container import ContainerPlan, title_of
from hermes_backend_docker._engine import Engine
from hermes_backend_docker._images import Images
from hermes_backend_docker._places import PlaceName, Places
from hermes_backend_docker._sandbox import DockerSandbox
from hermes_backend_docker._upkeep import clean_up, inspect
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError
from hermes_core.sandbox import (
    ISOLATION_LEVELS,
    Capabilities,
    MissingFolders,
    StartedSandboxes,
    check_isolation,
    portable_runtime,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_backend_docker._images import Image
    from hermes_core.sandbox import Runtime, Sandbox, SandboxInfo, SandboxSpec

__all__ = ["DockerBackend"]

START_S = 60.0

_logger = logging.getLogger(__name__)


class DockerBackend:
    """Starts containers with `hermes-sandboxd` in them.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = DockerConfig
    name: ClassVar[str] = "docker"

    def __init__(self, config: DockerConfig | None = None) -> None:
        self._config = config or DockerConfig()
        self._engine: Engine | None = None
        self._sandboxes = StartedSandboxes[DockerSandbox]("container", START_S)
        self._warned = False
        self._missing = MissingFolders()

    @property
    def config(self) -> DockerConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Every isolation level, images of tasks, and the network of the containers, if they have one."""
        offline = self._config.container_network == "none"
        return Capabilities(
            isolation=ISOLATION_LEVELS,
            network=("none",) if offline else ("none", "host"),
            image_per_task=True,
            gpu=self._config.gpus is not None,
        )

    @property
    def sandboxes(self) -> tuple[DockerSandbox, ...]:
        """The containers that were started and not stopped."""
        return tuple(self._sandboxes)

    async def __aenter__(self) -> Self:
        """Connect to the engine, remove what killed processes left, and see that there is the image that was named.

        Raises:
            BackendUnavailableError: It cannot work here; the hint says what to change.
        """
        self._places = _places(self._config)
        self._runtime: Runtime = await to_thread.run_sync(portable_runtime)
        engine = Engine(self._config.host)
        if not engine.local:
            raise BackendUnavailableError(
                f"the Docker engine at {engine.address} is not on this machine, and its sockets cannot be reached",
                hint="run Hermes on the engine's machine",
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(engine)
            await clean_up(engine, self._places, None, everywhere=False)
            self._images = Images(engine, self._config)
            if self._config.image is not None:
                await self._images.find(self._config.image)
            await self._images.prebuild(self._config.prebuild)
            self._tasks = await stack.enter_async_context(background_tasks())
            stack.push_async_callback(self._sandboxes.stop_all)
            self._engine = engine
            self._life = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every container that was started and not stopped."""
        await self._life.aclose()
        self._engine = None

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one container; cancelling leaves nothing behind."""
        if self._engine is None:
            raise BackendUnavailableError("the docker backend was not entered")
        image = await self._image(spec)
        alone = self._config.image_per_task and spec.image is not None
        sandbox = self._plan(self._engine, image, spec.image, PlaceName(owner, name), 1 if alone else spec.slots)
        async with self._sandboxes.starting(sandbox):
            await sandbox.launch()
            self._tasks.start_soon(sandbox.drain)
            ready = await sandbox.wait_ready()
            self._look_at(ready.isolation)
            self._missing.warn(ready.missing, spec.image)
        return sandbox

    async def _image(self, spec: SandboxSpec) -> Image:
        if spec.image is None:
            return await self._images.find(self._config.image)
        try:
            return await self._images.find(spec.image)
        except BackendUnavailableError as error:
            # One task's trouble, and no reason to refuse the others.
            raise SandboxLostError(error.message, hint=error.hint) from error

    def _plan(self, engine: Engine, image: Image, asked_for: str | None, name: PlaceName, slots: int) -> DockerSandbox:
        user = None if self._config.user is None else int(self._config.user.partition(":")[0])
        place = self._places.claim(name, user)
        return DockerSandbox(
            engine,
            ContainerPlan(
                name, title_of(name), image, asked_for, slots, place, self._places.identity, self._runtime, self._config
            ),
        )

    def _look_at(self, level: str) -> None:
        """See that slots are isolated well enough, and say it if they are less than they could be."""
        check_isolation(level, self._config.require_isolation, self.name)
        if self._config.isolation == "auto" and level != ISOLATION_LEVELS[0] and not self._warned:
            self._warned = True
            _logger.warning("slots have the isolation level %r only, since namespaces cannot be had there", level)

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what everyone has on this engine, by the labels of containers."""
        places = Places.open(self._config.state_dir, make=False)
        async with Engine(self._config.host) as engine:
            return await inspect(engine, places, owner)

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Remove containers whose processes are dead, and what this machine kept of them; return whose they were."""
        places = Places.open(self._config.state_dir, make=False)
        async with Engine(self._config.host) as engine:
            return await clean_up(engine, places, owner)


def _places(config: DockerConfig) -> Places:
    if config.user is not None and os.geteuid() not in (0, int(config.user.partition(":")[0])):
        raise BackendUnavailableError(
            f"user {config.user} of the containers cannot share a socket with this user",
            hint=f"-B user={os.geteuid()}, or leave it out",
        )
    places = Places.open(config.state_dir, make=True)
    assert places is not None
    return places

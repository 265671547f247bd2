"""Which images containers run: found, pulled or built, each once."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from docker import errors
from docker.utils import parse_repository_tag

from hermes_backend_docker._building import Build, BuildFailedError
from hermes_backend_docker._context import digest_of, digest_of_file, recipe_of
from hermes_backend_docker._errors import REFUSED
from hermes_core.exceptions import BackendUnavailableError, HermesError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hermes_backend_docker._config import DockerConfig
    from hermes_backend_docker._engine import Engine

__all__ = ["BUILT", "Image", "Images"]

BUILT = "dockerfile:"
"""Begins the name of an image that is built from the folder that follows."""

REFERENCE = Path(__file__).parent / "reference"
REFERENCE_NAME = "hermes-reference"
TASK_NAME = "hermes-task"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has.

    Attributes:
        id: Its digest.
        environment: Its variables.
    """

    id: str
    environment: Mapping[str, str]


class Images:
    """Finds images by the names that settings and tasks give them.

    Args:
        engine: Has them.
        config: Whether to pull, and how much to build at once.
    """

    def __init__(self, engine: Engine, config: DockerConfig) -> None:
        self._engine = engine
        self._config = config
        self._known: dict[str | None, Image] = {}
        self._failed: dict[str, BuildFailedError] = {}
        self._finding: defaultdict[str | None, anyio.Lock] = defaultdict(anyio.Lock)
        self._builds = anyio.CapacityLimiter(config.parallel_builds)

    async def find(self, name: str | None) -> Image:
        """Return an image, pulled or built if need be. A build that failed is not tried again.

        Args:
            name: A tag or digest, or `dockerfile:FOLDER`; None for the reference image.

        Raises:
            BackendUnavailableError: The engine does not have it, and it is not to be had.
            BuildFailedError: It cannot be built.
        """
        async with self._finding[name]:
            if name not in self._known:
                self._known[name] = await self._find(name)
            return self._known[name]

    async def prebuild(self, names: Iterable[str]) -> None:
        """Have images ready before they are needed, as many at once as may be built; say which cannot be had."""

        async def have(name: str) -> None:
            try:
                await self.find(name)
            except HermesError as error:
                _logger.warning("image %s cannot be had: %s", name, error.message)

        async with anyio.create_task_group() as tasks:
            for name in dict.fromkeys(names):
                tasks.start_soon(have, name)

    async def tagged(self, tag: str, folder: Path | None, recipe: Path | None) -> Image:
        """Return the image of a tag; if the engine has none, one is built and gets it.

        Args:
            tag: What the image is called.
            folder: What it is built from; None for the reference image.
            recipe: Its Dockerfile; None for that of the folder.

        Raises:
            BackendUnavailableError: The reference image has no base here.
            BuildFailedError: It cannot be built.
        """
        async with self._finding[tag]:
            if (found := await self._look(tag)) is not None:
                return found
            _logger.warning("the Docker engine has no image %s: it is built", tag)
            if folder is None:
                built = await self._reference(f"docker build --tag {tag} FOLDER")
            else:
                built = await self._of_folder(folder, recipe)
            if (found := await self._look(tag)) is not None:
                return found  # another process was faster
            await self._engine.call("tag", built.id, *parse_repository_tag(tag))
            return built

    async def _find(self, name: str | None) -> Image:
        if name is None:
            return await self._reference()
        if name.startswith(BUILT):
            return await self._of_folder(recipe_of(Path(name.removeprefix(BUILT))), None)
        return await self._present(name)

    async def _reference(self, instead: str = "-B base_image=TAG") -> Image:
        base = await self._present(self._config.base_image, instead)
        tag = f"{REFERENCE_NAME}:{digest_of(REFERENCE, base.id)}"
        return await self._built(Build(REFERENCE, tag, {"BASE": self._config.base_image}))

    async def _of_folder(self, folder: Path, recipe: Path | None) -> Image:
        further = () if recipe is None else (await anyio.to_thread.run_sync(digest_of_file, recipe),)
        digest = await anyio.to_thread.run_sync(digest_of, folder, *further)
        return await self._built(Build(folder, f"{TASK_NAME}:{digest}", recipe=recipe))

    async def _present(self, name: str, instead: str = "-B image=TAG") -> Image:
        """Return an image that the engine has, or that can be pulled.

        Args:
            name: Its tag or digest.
            instead: What takes another image, for hints.
        """
        lacking = f"the Docker engine has no image {name}"
        hint = f"docker pull or build it, or take another: {instead}"
        found = await self._look(name)
        if found is None and self._config.pull == "missing":
            _logger.warning("pulling the image %s", name)
            try:
                await self._engine.work(lambda client: client.pull(name), limiter=self._builds)
            except HermesError as error:
                told = error.message.removeprefix(REFUSED)
                raise BackendUnavailableError(f"{lacking}, and it cannot be pulled: {told}", hint=hint) from error
            found = await self._look(name)
        if found is None:
            raise BackendUnavailableError(lacking, hint=hint)
        return found

    async def _built(self, build: Build) -> Image:
        if failed := self._failed.get(build.tag):
            raise BuildFailedError(failed.message, hint=failed.hint)
        found = await self._look(build.tag)
        if found is not None:
            return found
        _logger.warning("building the image %s from %s", build.tag, build.recipe or build.folder)
        try:
            await self._engine.work(build.run, limiter=self._builds, abandon=True)
        except BuildFailedError as error:
            self._failed[build.tag] = error
            raise
        finally:
            build.given_up.set()
        return await self._present(build.tag)

    async def _look(self, name: str) -> Image | None:
        return await self._engine.work(lambda client: _look(client, name))


def _look(client: Any, name: str) -> Image | None:  # noqa: ANN401 - the SDK has no types
    try:
        found = client.inspect_image(name)
    except errors.ImageNotFound:
        return None
    pairs = (pair.partition("=") for pair in found["Config"].get("Env") or ())
    return Image(found["Id"], {name: text for name, _, text in pairs})

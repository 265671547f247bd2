"""Builds the image of a tag when the engine has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_backend_docker._config import DockerConfig
from hermes_backend_docker._context import RECIPE, recipe_of
from hermes_backend_docker._engine import Engine
from hermes_backend_docker._images import Images
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["build_missing"]


async def build_missing(
    tag: str, *, dockerfile: Path | None = None, context: Path | None = None, base_image: str | None = None
) -> str:
    """Return the id of a tag's image; if this machine's Docker engine has none, it is built first.

    Any number of processes may ask for the same tag at once.

    Args:
        tag: `NAME:TAG`.
        dockerfile: What to build, or the folder that it is in. Without it and `context`, the reference image is built.
        context: Folder that it is built from, by default the Dockerfile's. Alone, it has the Dockerfile in it.
        base_image: What the reference image is built on, by default `debian:bookworm-slim`; pulled if need be.

    Raises:
        ConfigError: There is no such Dockerfile or folder, or `base_image` was given beside one.
        BackendUnavailableError: There is no engine, or no such `base_image`.
        BuildFailedError: It cannot be built; the hint names a file with the whole log.
    """
    folder, recipe = _source(dockerfile, context)
    if folder is not None and base_image is not None:
        raise ConfigError("base_image is what the reference image is built on, and a Dockerfile names its own")
    config = DockerConfig() if base_image is None else DockerConfig(base_image=base_image)
    async with Engine() as engine:
        return (await Images(engine, config).tagged(tag, folder, recipe)).id


def _source(dockerfile: Path | None, context: Path | None) -> tuple[Path | None, Path | None]:
    """The folder to build from, and the Dockerfile if it is not the folder's own."""
    if context is not None and not context.is_dir():
        raise ConfigError(f"there is no folder {context} to build an image from")
    if dockerfile is None:
        return (None, None) if context is None else (recipe_of(context), None)
    recipe = dockerfile / RECIPE if dockerfile.is_dir() else dockerfile
    if not recipe.is_file():
        raise ConfigError(f"there is no Dockerfile {recipe}")
    folder = (context or recipe.parent).absolute()
    return folder, None if recipe.absolute() == folder / RECIPE else recipe.absolute()

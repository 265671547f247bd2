"""Images of this machine: a tag that ends in `:local` is built, and for Apptainer converted, when it is missing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_backend_nomad._reach import closed_to
from hermes_backend_nomad._sif import converted
from hermes_core.exceptions import BackendUnavailableError, ConfigError, SandboxError

if TYPE_CHECKING:
    from hermes_backend_nomad._config import NomadConfig, NomadSingularityConfig

__all__ = ["local_image", "local_sif"]

LOCAL = ":local"
ON_NODES = "if the nodes have the image, -B auto_build_local_image=false"
SIF_HINT = "-B image=/FOLDER/FILE.sif, a file that the nodes have, or -B image=NAME:local, an image of this machine"


async def local_image(config: NomadConfig, *, build: bool = True) -> str:
    """See that this machine's Docker engine has the image, if its tag ends in `:local`; build it if need be.

    Args:
        config: Names it.
        build: Whether to; otherwise only the settings are looked at.

    Returns:
        Its id; empty if nobody looked.

    Raises:
        ConfigError: There is a Dockerfile that would never be built, or none where one is said to be.
        BackendUnavailableError: The image cannot be had.
    """
    local = config.image.endswith(LOCAL)
    if not (local and config.auto_build_local_image):
        if (idle := _given(config)) is not None:
            reason = f"the tag of image {config.image} does not end in {LOCAL}" if not local else "nothing is built"
            raise ConfigError(f"{idle} does nothing here: {reason}", hint=f"leave it out, or -B image=NAME{LOCAL}")
        return ""
    if not build:
        return ""
    try:
        return await _built(config.image, config.dockerfile_path, config.docker_build_context)
    except BackendUnavailableError as error:
        raise BackendUnavailableError(error.message, hint=f"{error.hint}; {ON_NODES}") from error


async def local_sif(config: NomadSingularityConfig) -> str:
    """Return where the nodes find the image; one of this machine's Docker engine is built and converted if need be.

    Raises:
        ConfigError: There is no image, or it is none.
        BackendUnavailableError: It cannot be built or converted, or whoever runs the containers cannot read it.
    """
    image = config.image
    if image is None:
        raise ConfigError("the backend nomad-singularity needs an image", hint=SIF_HINT)
    if image.endswith(LOCAL):
        identity = await _built(image, None, None)
        return str(await converted(image, identity, executable=config.executable, user=config.user))
    return image if image.startswith("/") else str(_of_this_machine(image, config.user))


def _given(config: NomadConfig) -> str | None:
    """Which of the settings of a build was given, if any."""
    return next((name for name in ("dockerfile_path", "docker_build_context") if getattr(config, name)), None)


def _of_this_machine(image: str, user: str | None) -> Path:
    """Return the whole path of an image that was named from where we are, which is no place on other nodes."""
    path = Path(image).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"image {image} is neither a file nor a folder here", hint=SIF_HINT)
    with suppress(KeyError):  # no user of this machine, which the nodes will judge
        if user is not None and (closed := closed_to(user, path if path.is_dir() else path.parent)) is not None:
            raise BackendUnavailableError(
                f"user {user}, who runs the containers, cannot read image {path}: {closed} is closed to others",
                hint="put it where everybody may look",
            )
    return path


async def _built(tag: str, dockerfile: Path | None, context: Path | None) -> str:
    """The id of an image of this machine's engine, built if need be."""
    try:
        from hermes_backend_docker import build_missing
    except ImportError as error:
        raise BackendUnavailableError(
            f"image {tag} is this machine's, and what builds it is not installed",
            hint="pip install 'hermes-backend-nomad[docker]'",
        ) from error
    try:
        return await build_missing(tag, dockerfile=dockerfile, context=context)
    except SandboxError as error:
        raise BackendUnavailableError(f"image {tag} cannot be had: {error.message}", hint=error.hint) from error

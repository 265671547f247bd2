"""What tests do with images of the Docker engine; `.ci/engines/docker.sh` starts one."""

from __future__ import annotations

import fcntl
import tempfile
import uuid
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import docker
from docker import errors

from hermes_backend_docker import DockerConfig
from hermes_backend_docker._engine import Engine
from hermes_backend_docker._images import Images

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["engine_client", "reference_image", "unused_tag"]


@contextmanager
def engine_client() -> Iterator[Any]:
    """The SDK's client, to look at the engine and to meddle with it."""
    with closing(docker.APIClient(version="auto", **docker.utils.kwargs_from_env())) as client:
        yield client


def reference_image(base: str) -> str:
    """The reference image on a base, built once for all processes."""

    async def find() -> str:
        async with Engine() as engine:
            return (await Images(engine, DockerConfig(base_image=base)).find(None)).id

    with (Path(tempfile.gettempdir()) / "hermes-test-reference.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return anyio.run(find)


@contextmanager
def unused_tag(client: Any, label: str) -> Iterator[str]:  # noqa: ANN401 - the SDK has no types
    """A tag that the engine does not have; afterwards the image of that tag, and those with a label, are removed."""
    name = f"hermes-test-{uuid.uuid4().hex[:8]}:local"
    try:
        yield name
    finally:
        with suppress(errors.ImageNotFound):
            client.remove_image(name)
        for image in client.images(filters={"label": label}):
            with suppress(errors.APIError):
                client.remove_image(image["Id"], force=True)

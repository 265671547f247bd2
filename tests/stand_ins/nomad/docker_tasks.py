"""The driver docker: real containers of the engine on this machine."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import docker
import docker.errors
import requests

from .docker_config import container_arguments
from .drivers import DriverError, Exit, Task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .documents import Doc
    from .options import Options

__all__ = ["DockerTasks"]

WAITERS = 256
"""Containers that can be waited for, each in a thread of its own."""


def said(error: Exception) -> str:
    """Write an error of the engine as the agent does."""
    explanation = getattr(error, "explanation", None)
    return f"Error response from daemon: {explanation}" if explanation else str(error)


def with_tag(image: str) -> str:
    """Name an image in full."""
    return image if re.search(r":[^/]+$|@", image) else f"{image}:latest"


class DockerTasks:
    """Starts containers; a handle is the container's ID."""

    isolated = True

    def __init__(self, options: Options) -> None:
        self._options = options
        self._threads = ThreadPoolExecutor(WAITERS, "docker")
        self._client: Any = None

    async def _call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*arguments, **named))

    @property
    def engine(self) -> Any:
        """The client of the engine."""
        if self._client is None:
            self._client = docker.from_env(timeout=600, max_pool_size=WAITERS)
        return self._client

    def version(self) -> str | None:
        """Return the engine's version, or `None` if there is no engine."""
        try:
            return str(self.engine.version()["Version"])
        except (docker.errors.DockerException, requests.RequestException):
            return None

    async def prepare(self, task: Task) -> None:
        """Pull the image if need be."""
        if not task.config.get("image"):
            raise DriverError("image name required for docker driver")
        await self._have_image(task, str(task.config["image"]))

    async def start(self, task: Task) -> Doc:
        """Create a container and start it."""
        identifier = (await self._call(self.engine.images.get, with_tag(str(task.config["image"])))).id
        arguments = container_arguments(task, identifier, self._options)
        try:
            container = await self._call(self._create, arguments)
        except docker.errors.DockerException as error:
            raise DriverError(f"Failed to create container: {said(error)}") from error
        try:
            await self._call(container.start)
        except docker.errors.DockerException as error:
            await self.vanish({"container": container.id})
            raise DriverError(f"Failed to start container {container.id}: {said(error)}", recoverable=True) from error
        return {"container": container.id}

    def _create(self, arguments: Doc) -> Any:
        try:
            return self.engine.containers.create(**arguments)
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise
        self.engine.containers.get(arguments["name"]).remove(force=True)  # an earlier attempt's
        return self.engine.containers.create(**arguments)

    async def _have_image(self, task: Task, image: str) -> None:
        name = with_tag(image)
        try:
            if not task.config.get("force_pull"):
                await self._call(self.engine.images.get, name)
                return
        except docker.errors.ImageNotFound:
            pass
        task.say("Downloading image", {"image": name})
        try:
            await self._call(self.engine.images.pull, name)
        except (docker.errors.DockerException, requests.RequestException) as error:
            final = isinstance(error, docker.errors.NotFound)
            raise DriverError(f"Failed to pull `{name}`: {said(error)}", recoverable=not final) from error

    async def recover(self, handle: Doc) -> bool:
        """Tell whether the container is still there."""
        try:
            await self._call(self.engine.containers.get, handle["container"])
        except docker.errors.NotFound:
            return False
        return True

    async def wait(self, handle: Doc) -> Exit:
        """Wait for the container's end."""
        try:
            answer = await self._call(self.engine.api.wait, handle["container"], timeout=10**6)
        except docker.errors.NotFound:
            return Exit(137, 9, "the container is gone")
        code = int(answer["StatusCode"])
        return Exit(code, message=f"Docker container exited with non-zero exit code: {code}" if code else "")

    async def stop(self, handle: Doc, signal: str, seconds: float) -> None:
        """Ask the container to end, and kill it after that."""
        await self._quietly("kill", handle, signal=signal)
        ending = asyncio.ensure_future(self.wait(handle))
        try:
            await asyncio.wait_for(asyncio.shield(ending), seconds)
        except TimeoutError:
            await self._quietly("kill", handle, signal="SIGKILL")
            await ending

    async def vanish(self, handle: Doc) -> None:
        """Remove the container."""
        await self._quietly("remove_container", handle, force=True, v=True)

    async def remove(self, handle: Doc, logs: dict[str, Path]) -> None:
        """Keep what it has written, and remove the container."""
        try:
            for kind, file in logs.items():
                written = await self.read_logs(handle, kind, file)
                with suppress(FileNotFoundError):  # a job that was purged meanwhile has taken the folder along
                    file.write_bytes(written)
        finally:
            await self.vanish(handle)

    async def read_logs(self, handle: Doc, kind: str, file: Path) -> bytes:
        """Ask the engine as long as it has the container."""
        wanted = {"stdout": kind == "stdout", "stderr": kind == "stderr"}
        try:
            return bytes(await self._call(self.engine.api.logs, handle["container"], **wanted))
        except docker.errors.DockerException:
            return file.read_bytes() if file.exists() else b""

    async def _quietly(self, call: str, handle: Doc, **named: object) -> None:
        try:
            await self._call(getattr(self.engine.api, call), handle["container"], **named)
        except docker.errors.APIError:
            return  # it has ended, or is gone

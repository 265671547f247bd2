"""The engine, as asynchronous code calls it."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import docker
from anyio import to_thread
from docker.constants import DEFAULT_UNIX_SOCKET
from docker.utils import kwargs_from_env

from hermes_backend_docker._errors import engine_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Engine"]

T = TypeVar("T")

CALL_S = 60.0
CALLS = 16
"""Calls under way at once; the SDK is synchronous, so that each takes a thread."""


class Engine:
    """A connection to the Docker engine; an async context manager.

    Args:
        host: Its address; None for that of DOCKER_HOST, or the local one.
    """

    def __init__(self, host: str | None = None) -> None:
        self._host = host
        self._limiter = anyio.CapacityLimiter(CALLS)
        self._client: Any = None

    @property
    def address(self) -> str:
        """Where it is."""
        return self._host or os.environ.get("DOCKER_HOST") or DEFAULT_UNIX_SOCKET.replace("http+unix", "unix")

    @property
    def local(self) -> bool:
        """Whether its machine is this one."""
        return self.address.startswith(("unix://", "http+unix://"))

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            BackendUnavailableError: There is no engine, or it lets nobody in.
        """
        self._client = await self._run(self._connect)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Any:  # noqa: ANN401 - the SDK has no types
        if self.local:
            # What the system says of it is clearer than what the SDK makes of that.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.address.partition("://")[2])
        settings: dict[str, Any] = kwargs_from_env()
        if self._host is not None:
            settings["base_url"] = self._host
        return docker.APIClient(version="auto", timeout=CALL_S, max_pool_size=CALLS, **settings)

    async def call(self, method: str, *arguments: object, **named: object) -> Any:  # noqa: ANN401 - the SDK has no types
        """Call a method of the SDK's `APIClient` in a thread, and wait for it even if cancelled.

        Raises:
            HermesError: See `engine_errors`.
        """
        return await self.work(lambda client: getattr(client, method)(*arguments, **named))

    async def work(
        self, function: Callable[[Any], T], *, limiter: anyio.CapacityLimiter | None = None, abandon: bool = False
    ) -> T:
        """Run a function of the SDK's `APIClient` in a thread.

        Args:
            function: What to do.
            limiter: How much of this may go on at once, instead of what holds for calls.
            abandon: Whether cancelling leaves it to itself; otherwise it is waited for even then.

        Raises:
            HermesError: See `engine_errors`.
        """
        return await self._run(partial(function, self._client), limiter, abandon=abandon)

    async def _run(
        self, function: Callable[[], T], limiter: anyio.CapacityLimiter | None = None, *, abandon: bool = False
    ) -> T:
        with engine_errors(self.address):
            return await to_thread.run_sync(function, limiter=limiter or self._limiter, abandon_on_cancel=abandon)

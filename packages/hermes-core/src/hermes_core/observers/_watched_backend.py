"""A backend whose sandboxes are told of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hermes_core.observers._events import SandboxFinished, SandboxStarted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from anyio.abc import ByteStream
    from pydantic import BaseModel

    from hermes_core.observers._hub import ObserverHub
    from hermes_core.sandbox import Capabilities, Sandbox, SandboxBackend, SandboxInfo, SandboxSpec

__all__ = ["WatchedBackend"]


class WatchedBackend:
    """Passes everything on to a backend, and posts when a sandbox has started and when it is stopped.

    Args:
        backend: The backend.
        hub: Told of its sandboxes.
    """

    def __init__(self, backend: SandboxBackend, hub: ObserverHub) -> None:
        self._backend = backend
        self._hub = hub

    @property
    def name(self) -> str:
        """As of the backend."""
        return self._backend.name

    @property
    def config(self) -> BaseModel:
        """As of the backend."""
        return self._backend.config

    @property
    def capabilities(self) -> Capabilities:
        """As of the backend."""
        return self._backend.capabilities

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one sandbox and tell of it."""
        sandbox = await self._backend.start(spec, owner, name)
        self._hub.post(SandboxStarted(sandbox.name, self.name))
        return _WatchedSandbox(sandbox, self._hub, self.name)

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """As of the backend."""
        return await self._backend.list(owner)

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """As of the backend."""
        return await self._backend.cleanup(owner)

    async def __aenter__(self) -> Self:
        """As of the backend."""
        await self._backend.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As of the backend."""
        await self._backend.__aexit__(exc_type, exc, traceback)


class _WatchedSandbox:
    """Passes everything on to a sandbox, and posts once when it is stopped."""

    def __init__(self, sandbox: Sandbox, hub: ObserverHub, backend: str) -> None:
        self._sandbox = sandbox
        self._hub = hub
        self._backend = backend
        self._cause: str | None = None
        self._told = False

    @property
    def name(self) -> str:
        return self._sandbox.name

    @property
    def capacity(self) -> int:
        return self._sandbox.capacity

    @property
    def token(self) -> str | None:
        return self._sandbox.token

    async def connect(self) -> ByteStream:
        return await self._sandbox.connect()

    async def alive(self) -> str | None:
        cause = await self._sandbox.alive()
        self._cause = self._cause or cause
        return cause

    async def stop(self) -> None:
        if not self._told:
            self._told = True
            self._hub.post(SandboxFinished(self.name, self._backend, self._cause))
        await self._sandbox.stop()

"""A backend whose sandboxes are told of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.observers._events import SandboxFinished, SandboxStarted
from hermes_core.sandbox import PassingBackend

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from hermes_core.observers._hub import ObserverHub
    from hermes_core.sandbox import Sandbox, SandboxBackend, SandboxSpec

__all__ = ["WatchedBackend"]


class WatchedBackend(PassingBackend):
    """Passes everything on to a backend, and posts when a sandbox has started and when it is stopped.

    Args:
        backend: The backend.
        hub: Told of its sandboxes.
    """

    def __init__(self, backend: SandboxBackend, hub: ObserverHub) -> None:
        super().__init__(backend)
        self._hub = hub

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one sandbox and tell of it."""
        sandbox = await super().start(spec, owner, name)
        self._hub.post(SandboxStarted(sandbox.name, self.name))
        return _WatchedSandbox(sandbox, self._hub, self.name)


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

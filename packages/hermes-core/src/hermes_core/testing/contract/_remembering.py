"""A backend that remembers what it started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_core.sandbox import Capabilities, Sandbox, SandboxBackend, SandboxInfo, SandboxSpec

__all__ = ["RememberingBackend"]


class RememberingBackend:
    """Stands before another backend, which somebody else enters and leaves.

    Args:
        backend: The backend that starts sandboxes.
    """

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend
        self.sandboxes: list[Sandbox] = []
        """What was started through this one, in order."""

    @property
    def name(self) -> str:
        """As the backend's."""
        return self._backend.name

    @property
    def config(self) -> BaseModel:
        """As the backend's."""
        return self._backend.config

    @property
    def capabilities(self) -> Capabilities:
        """As the backend's."""
        return self._backend.capabilities

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start a sandbox and remember it."""
        sandbox = await self._backend.start(spec, owner, name)
        self.sandboxes.append(sandbox)
        return sandbox

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """As the backend does."""
        return await self._backend.list(owner)

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """As the backend does."""
        return await self._backend.cleanup(owner)

    async def __aenter__(self) -> Self:
        """Do nothing: the backend was entered already."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: whoever entered the backend leaves it."""

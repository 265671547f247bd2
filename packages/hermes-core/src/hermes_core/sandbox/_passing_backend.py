"""A backend that passes everything on to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_core.sandbox._protocol import Capabilities, Sandbox, SandboxBackend, SandboxInfo, SandboxSpec

__all__ = ["PassingBackend"]


class PassingBackend:
    """Passes everything on; subclasses change what they are about.

    Args:
        backend: The backend that does the work.
    """

    def __init__(self, backend: SandboxBackend) -> None:
        self._backend = backend

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
        """As of the backend."""
        return await self._backend.start(spec, owner, name)

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

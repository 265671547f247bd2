"""A backend that remembers what it started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hermes_core.sandbox import PassingBackend

if TYPE_CHECKING:
    from types import TracebackType

    from hermes_core.sandbox import Sandbox, SandboxBackend, SandboxSpec

__all__ = ["RememberingBackend"]


class RememberingBackend(PassingBackend):
    """Stands before another backend, which somebody else enters and leaves.

    Args:
        backend: The backend that starts sandboxes.
    """

    def __init__(self, backend: SandboxBackend) -> None:
        super().__init__(backend)
        self.sandboxes: list[Sandbox] = []
        """What was started through this one, in order."""

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start a sandbox and remember it."""
        sandbox = await super().start(spec, owner, name)
        self.sandboxes.append(sandbox)
        return sandbox

    async def __aenter__(self) -> Self:
        """Do nothing: the backend was entered already."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing: whoever entered the backend leaves it."""

"""What a backend has started, and has to stop."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import anyio

from hermes_core.exceptions import SandboxLostError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

__all__ = ["StartedSandboxes", "Stoppable"]


class Stoppable(Protocol):
    """What a backend knows of its sandboxes besides how they are started."""

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""

    async def stop(self) -> None:
        """End it and all that is in it, even if cancelled; idempotent."""


S = TypeVar("S", bound=Stoppable)


class StartedSandboxes(Generic[S]):
    """The sandboxes of a backend: none outlives a start that fails, nor the backend.

    Args:
        what: What has to come up in each, for the message when it does not: `daemon`, `container`.
        start_s: Seconds that it may take.
    """

    def __init__(self, what: str, start_s: float) -> None:
        self._what = what
        self._start_s = start_s
        self._known: set[S] = set()

    def __iter__(self) -> Iterator[S]:
        """Those that were not stopped, in no order."""
        return iter([sandbox for sandbox in self._known if not sandbox.stopped])

    @asynccontextmanager
    async def starting(self, sandbox: S) -> AsyncGenerator[None]:
        """Have a sandbox, which is stopped again if what starts it fails, is cancelled or takes too long.

        Raises:
            SandboxLostError: It took too long.
        """
        self._known = {*self, sandbox}
        try:
            with anyio.fail_after(self._start_s):
                yield
        except TimeoutError:
            await sandbox.stop()
            raise SandboxLostError(
                f"the {self._what} of sandbox {sandbox.name} did not come up within {self._start_s:g} s"
            ) from None
        except BaseException:
            await sandbox.stop()
            raise

    async def stop_all(self) -> None:
        """Stop all at once, even if cancelled; those that somebody else stops already are waited for."""
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as stopping:
                for sandbox in self:
                    stopping.start_soon(sandbox.stop)

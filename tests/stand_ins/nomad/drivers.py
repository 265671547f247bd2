"""What every task driver does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .alloc_dir import TaskDir
    from .documents import Doc

__all__ = ["Driver", "DriverError", "Exit", "Task"]


class DriverError(Exception):
    """The task could not be started; if it is recoverable the restart policy decides about another attempt."""

    def __init__(self, text: str, *, recoverable: bool = False) -> None:
        super().__init__(text)
        self.recoverable = recoverable


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended."""

    code: int
    signal: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One task that is about to start, with everything interpolated."""

    allocation: str
    name: str
    user: str
    config: Doc
    environment: dict[str, str]
    folder: TaskDir
    resources: Doc
    ports: list[Doc] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    say: Callable[[str, dict[str, str]], None] = lambda text, details: None
    """Tell of what the driver does, as the event `Driver`."""


class Driver(Protocol):
    """Starts tasks and follows them; a handle is JSON, so that another process of the agent can take over."""

    isolated: bool
    """The task sees `/local`, `/secrets` and `/alloc` instead of the folders of the node."""

    async def prepare(self, task: Task) -> None:
        """Do what may take long, and leaves nothing behind if it is cancelled."""

    async def start(self, task: Task) -> Doc:
        """Start the task, or raise `DriverError`."""

    async def recover(self, handle: Doc) -> bool:
        """Tell whether what the handle means is running, or its end can still be learned."""

    async def wait(self, handle: Doc) -> Exit:
        """Wait until the task has ended."""

    async def stop(self, handle: Doc, signal: str, seconds: float) -> None:
        """Send the signal, and kill what is left after some seconds."""

    async def vanish(self, handle: Doc) -> None:
        """Kill at once and leave nothing, as if the machine were gone."""

    async def remove(self, handle: Doc, logs: dict[str, Path]) -> None:
        """Clean up after the end; what the task wrote is in the files `logs` afterwards."""

    async def read_logs(self, handle: Doc, kind: str, file: Path) -> bytes:
        """Return what the task has written so far to `stdout` or `stderr`."""

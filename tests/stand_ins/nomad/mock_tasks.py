"""The driver mock: tasks that are nothing but a state, and end when they are told to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from .drivers import Exit, Task

if TYPE_CHECKING:
    from pathlib import Path

    from .documents import Doc

__all__ = ["MockTasks"]


class Ending:
    """How a task has ended, once it has."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.exit = Exit(0)


class MockTasks:
    """Starts nothing; a handle is the allocation's ID."""

    isolated = False

    def __init__(self) -> None:
        self._endings: defaultdict[str, Ending] = defaultdict(Ending)

    def end(self, allocation: str, code: int) -> None:
        """End the task of an allocation."""
        ending = self._endings[allocation]
        ending.exit = Exit(code)
        ending.done.set()

    async def prepare(self, task: Task) -> None:
        """There is nothing to prepare."""

    async def start(self, task: Task) -> Doc:
        """Say that it runs."""
        self._endings.pop(task.allocation, None)
        return {"allocation": task.allocation}

    async def recover(self, handle: Doc) -> bool:
        """It can always be taken over."""
        return True

    async def wait(self, handle: Doc) -> Exit:
        """Wait until it is ended."""
        ending = self._endings[handle["allocation"]]
        await ending.done.wait()
        return ending.exit

    async def stop(self, handle: Doc, signal: str, seconds: float) -> None:
        """End it."""
        self.end(handle["allocation"], 0)

    async def vanish(self, handle: Doc) -> None:
        """End it."""
        self.end(handle["allocation"], 137)

    async def remove(self, handle: Doc, logs: dict[str, Path]) -> None:
        """Forget it."""
        self._endings.pop(handle["allocation"], None)

    async def read_logs(self, handle: Doc, kind: str, file: Path) -> bytes:
        """It writes nothing."""
        return b""

"""Live progress of a run: an observer that draws."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from hermes_core.observers import Observer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hermes_core.observers import RunStarted, ToolCallFinished, TrajectoryFinished, TrajectoryStarted
    from hermes_core.slots import PoolStatus

__all__ = ["RunProgress"]

PLAIN_EVERY_S = 5.0


class RunProgress(Observer):
    """Shows done, running and failed trajectories, the reward so far, calls/s and slots in use.

    On a terminal it redraws one line; elsewhere it prints a line every few seconds.

    Args:
        pool: Asked for the slots in use at every redraw.
    """

    def __init__(self, pool: Callable[[], PoolStatus | None]) -> None:
        self._pool = pool
        self._console = Console(stderr=True)
        self._running: set[str] = set()
        self._total: int | None = None
        self._done = self._failed = self._scored = self._calls = 0
        self._rewards = 0.0
        self._started = self._last_line = time.monotonic()
        self._live = Live(console=self._console, get_renderable=self._line, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Start to draw."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._live.stop()

    async def run_started(self, event: RunStarted) -> None:
        """Take over what an interrupted run had done."""
        self._total, self._done = event.total, event.done
        self._started = self._last_line = time.monotonic()

    async def trajectory_started(self, event: TrajectoryStarted) -> None:
        """Count it as running."""
        self._running.add(event.trajectory_id)

    async def tool_call_finished(self, event: ToolCallFinished) -> None:
        """Count the call."""
        self._calls += 1

    async def trajectory_finished(self, event: TrajectoryFinished) -> None:
        """Count it as done or failed."""
        self._running.discard(event.trajectory_id)
        if event.trajectory.reward is None:
            self._failed += 1
        else:
            self._done += 1
            self._scored += 1
            self._rewards += event.trajectory.reward
        self._print_plainly()

    def _figures(self) -> dict[str, str]:
        seconds = max(time.monotonic() - self._started, 1e-9)
        pool = self._pool()
        return {
            "done": f"{self._done}" if self._total is None else f"{self._done}/{self._total}",
            "running": str(len(self._running)),
            "failed": str(self._failed),
            "reward": f"{self._rewards / self._scored:.3f}" if self._scored else "-",
            "calls/s": f"{self._calls / seconds:.0f}",
            "slots": f"{pool.leased}/{pool.slots}" if pool else "-",
            "": f"{seconds:.0f} s",
        }

    def _line(self) -> Text:
        line = Text(no_wrap=True, overflow="ellipsis")
        for name, value in self._figures().items():
            line.append(f"{name} " if name else "", style="dim").append(f"{value}  ")
        return line

    def _print_plainly(self) -> None:
        now = time.monotonic()
        if self._console.is_terminal or now - self._last_line < PLAIN_EVERY_S:
            return
        self._last_line = now
        click.echo(self._line().plain.rstrip(), err=True)

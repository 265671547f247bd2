"""A run that was made: its numbers, and readers over its files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from hermes_core.exceptions import RunDirectoryError
from hermes_core.runs._statistics import RunStatistics
from hermes_core.trajectory import read_trajectories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.trajectory import Trajectory

__all__ = ["Run", "default_directory"]

_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk.

    Attributes:
        directory: Its folder.
        statistics: Its numbers.
    """

    directory: Path
    statistics: RunStatistics

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """Read a run that was made earlier.

        Raises:
            RunDirectoryError: The folder holds no statistics of a run.
        """
        path = Path(directory) / "statistics.json"
        try:
            data = json.loads(path.read_bytes())
            known = {field.name for field in fields(RunStatistics)}
            return cls(Path(directory), RunStatistics(**{k: v for k, v in data.items() if k in known}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise RunDirectoryError(f"{path} cannot be read: {error}") from None

    def trajectories(self) -> AsyncIterator[Trajectory]:
        """Read the finished trajectories from their file, in the order in which they ended."""
        return _read(self.directory / "trajectories.jsonl")

    def failures(self) -> AsyncIterator[Trajectory]:
        """Read the trajectories that infrastructure spoiled for good."""
        return _read(self.directory / "failures.jsonl")


def default_directory(environment: str, model: str) -> Path:
    """A folder for a run that was given none: `runs/ENV-MODEL-TIME`, in UTC."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path("runs") / re.sub(r"[^A-Za-z0-9._-]+", "-", f"{environment}-{model}-{stamp}")


async def _read(path: Path) -> AsyncIterator[Trajectory]:
    reader = read_trajectories(path)
    while chunk := await anyio.to_thread.run_sync(lambda: tuple(islice(reader, _CHUNK))):
        for trajectory in chunk:
            yield trajectory

"""Finds single trajectories in a file without holding them all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hermes_core.exceptions import RunDirectoryError
from hermes_core.trajectory._codec import trajectory_from_dict
from hermes_core.trajectory._reader import read_lines, trajectory_file

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_core.trajectory._types import Trajectory

__all__ = ["TrajectoryIndex"]


class TrajectoryIndex:
    """The place of each trajectory of a file, by task and sample.

    Args:
        path: A file of trajectories, or a run directory. It is read once, here.

    Raises:
        RunDirectoryError: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = trajectory_file(path)
        self._offsets: dict[tuple[str, int], int] = {}
        for offset, data in read_lines(self._file):
            try:
                self._offsets[data["task_id"], data["sample_index"]] = offset
            except (KeyError, TypeError):
                raise RunDirectoryError(f"{self._file}: the line at byte {offset} is no trajectory") from None

    def __contains__(self, key: tuple[str, int]) -> bool:
        return key in self._offsets

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, task_id: str, sample_index: int) -> Trajectory:
        """Read one trajectory.

        Raises:
            KeyError: The file does not hold it.
        """
        with self._file.open("rb") as stream:
            stream.seek(self._offsets[task_id, sample_index])
            return trajectory_from_dict(json.loads(stream.readline()))

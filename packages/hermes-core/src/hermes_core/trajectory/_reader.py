"""Reads files of trajectories, line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import RunDirectoryError
from hermes_core.trajectory._codec import trajectory_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_core.trajectory._types import Trajectory

__all__ = ["read_lines", "read_trajectories", "trajectory_file"]


def trajectory_file(path: str | Path) -> Path:
    """The file of trajectories that is meant: a run directory stands for its own."""
    path = Path(path)
    return path / "trajectories.jsonl" if path.is_dir() else path


def read_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """Read a file of trajectories, or a run directory's, one at a time.

    A last line without a line end was never finished and is left out.

    Raises:
        RunDirectoryError: There is no such file, or a line is no trajectory.
    """
    file = trajectory_file(path)
    for number, (_, data) in enumerate(read_lines(file), 1):
        try:
            yield trajectory_from_dict(data)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise RunDirectoryError(f"{file}: line {number} is no trajectory ({fault})") from None


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the whole lines of a JSONL file as (offset in bytes, object).

    Raises:
        RunDirectoryError: There is no such file, or a line is no JSON object.
    """
    try:
        stream = file.open("rb")
    except OSError as error:
        raise RunDirectoryError(f"cannot read {file}: {error.strerror}") from None
    with stream:
        offset = 0
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                data = json.loads(line)
            except ValueError:
                data = None
            if not isinstance(data, dict):
                raise RunDirectoryError(f"{file}: line {number} is no JSON object")
            yield offset, data
            offset += len(line)

"""The folder of a run: what is in it, whose it is, and what is done already."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import ValidationError

from hermes_core.exceptions import RunDirectoryError
from hermes_core.runs._config import RunConfig, refuse_difference
from hermes_core.runs._statistics import Tally
from hermes_core.trajectory import TrajectoryWriter, read_trajectories

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from hermes_core.execution import JsonValue
    from hermes_core.runs._statistics import RunStatistics

__all__ = ["RunDirectory"]

_LOCK = ".lock"


class RunDirectory:
    """A run's folder, held by one process at a time; a context manager. Made by `open`.

    Attributes:
        path: The folder.
        config: The run; when it is resumed, with the run id and start time of its first start.
        tally: Counts what is in the folder.
        earlier_s: Seconds of earlier starts, as far as known.
    """

    def __init__(self, path: Path, config: RunConfig, lock: int) -> None:
        self.path = path
        self.config = config
        self.tally = Tally()
        self.earlier_s = 0.0
        self._lock = lock
        self._done: dict[str, int] = {}

    @classmethod
    def open(cls, path: str | Path, config: RunConfig, *, resume: bool = False) -> Self:
        """Begin a run's folder, or take up an interrupted run.

        Reads the whole file of trajectories of a resumed run, in this thread.

        Args:
            path: The folder; made if it is missing.
            config: The run.
            resume: Whether the folder may hold this run's beginning. Nothing there yet is a beginning too.

        Raises:
            RunDirectoryError: The folder holds something else, is in use, or cannot be written.
        """
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
        except OSError as error:
            raise RunDirectoryError(f"cannot write to folder {path}: {error.strerror}") from None
        try:
            return cls(path, config, lock)._begin(resume)
        except BaseException:
            os.close(lock)
            raise

    def is_done(self, task_id: str, sample_index: int) -> bool:
        """Whether the folder held this trajectory when it was opened."""
        return bool(self._done.get(task_id, 0) >> sample_index & 1)

    def forget(self, task_id: str) -> None:
        """Free the memory of a task that will not be asked for again."""
        self._done.pop(task_id, None)

    @property
    def finished(self) -> Path:
        """The file of finished trajectories."""
        return self.path / "trajectories.jsonl"

    @property
    def failed(self) -> Path:
        """The file of trajectories that infrastructure spoiled."""
        return self.path / "failures.jsonl"

    @property
    def recordings(self) -> Path:
        """The folder of the terminals' recordings; it is there when there are any."""
        return self.path / "recordings"

    def write_statistics(self, statistics: RunStatistics) -> None:
        """Replace `statistics.json`."""
        _replace_json(self.path / "statistics.json", statistics.to_dict())

    def close(self) -> None:
        """Let others have the folder; idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """Nothing more to do: it was opened."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let others have the folder."""
        self.close()

    def _begin(self, resume: bool) -> Self:
        present = {entry.name for entry in self.path.iterdir()} - {_LOCK, "run.json.new"}
        if present and not resume:
            raise RunDirectoryError(
                f"output folder {self.path} is not empty", hint="continue its run with --resume, or choose another one"
            )
        if present and "run.json" not in present:
            raise RunDirectoryError(f"output folder {self.path} holds no run (no run.json)", hint="choose another one")
        if present:
            self._resume()
        try:
            _replace_json(self.path / "run.json", self.config.model_dump(mode="json"))
        except OSError as error:
            raise RunDirectoryError(f"cannot write to folder {self.path}: {error.strerror}") from None
        return self

    def _resume(self) -> None:
        earlier = _read_config(self.path / "run.json")
        refuse_difference(earlier, self.config)
        self.config = self.config.model_copy(update={"run_id": earlier.run_id, "started_at": earlier.started_at})
        TrajectoryWriter.repair(self.finished)
        for trajectory in read_trajectories(self.finished):
            self._done[trajectory.task_id] = self._done.get(trajectory.task_id, 0) | 1 << trajectory.sample_index
            self.tally.add(trajectory)
        # What failed is tried again: the file then tells of what this start of the run could not do.
        self.failed.write_bytes(b"")
        try:
            self.earlier_s = float(json.loads((self.path / "statistics.json").read_bytes())["duration_s"])
        except (OSError, ValueError, KeyError, TypeError):
            self.earlier_s = 0.0  # killed before it could write any


def _locked(path: Path) -> int:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RunDirectoryError(
            f"output folder {path} is in use by another process", hint="wait for it, or choose another one"
        ) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _read_config(path: Path) -> RunConfig:
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise RunDirectoryError(f"{path} is of another version or damaged: {where} {fault['msg']}") from None
    except OSError as error:
        raise RunDirectoryError(f"cannot read {path}: {error.strerror}") from None


def _replace_json(path: Path, data: Mapping[str, JsonValue]) -> None:
    """Write a file so that it is there as a whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as stream:
        json.dump(data, stream, indent=2, ensure_ascii=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

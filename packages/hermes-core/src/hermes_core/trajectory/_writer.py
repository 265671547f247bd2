"""Appends trajectories to a file so that what counts as done is on the disk."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import RunDirectoryError
from hermes_core.trajectory._codec import encode_line, to_dict

if TYPE_CHECKING:
    from types import TracebackType

    from hermes_core.trajectory._types import Trajectory

__all__ = ["TrajectoryWriter"]

COMMIT_INTERVAL_S = 0.05
_BLOCK = 1 << 16


class _Batch:
    """Lines that become durable together."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.written = anyio.Event()
        self.error: OSError | None = None


class TrajectoryWriter:
    """The one writer of a JSONL file of trajectories; an async context manager.

    Appends that meet in time share one fsync, at most one each 50 ms; a lone one does not wait. On open, a last line
    that was torn by a crash is cut.

    Args:
        path: The file; made if it is missing.

    Raises:
        RunDirectoryError: It cannot be opened, or another process writes it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunDirectoryError(f"cannot write {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise RunDirectoryError(f"{self.path} is being written by another process") from None
        _cut_torn_end(self._file)
        self._batch = _Batch()
        self._some = anyio.Event()
        self._open = True
        # A second native cancellation under asyncio can leave a write in its thread behind when the file is closed.
        self._writing = threading.Lock()

    @classmethod
    def repair(cls, path: str | Path) -> None:
        """Cut a torn end of a file that nobody writes; make it if it is missing.

        Raises:
            RunDirectoryError: It cannot be opened, or another process writes it.
        """
        os.close(cls(path)._file)

    async def append(self, trajectory: Trajectory) -> None:
        """Write a trajectory; when this returns it is durable.

        Cancelled, it may or may not be written; what was handed over is written at the latest when the writer closes.

        Raises:
            RunDirectoryError: The disk refuses it.
        """
        if not self._open:
            raise RunDirectoryError(f"{self.path} is closed")
        batch = self._batch
        batch.lines.append(encode_line(to_dict(trajectory)))
        self._some.set()
        await batch.written.wait()
        if batch.error is not None:
            raise RunDirectoryError(f"cannot write {self.path}: {batch.error.strerror}")

    async def __aenter__(self) -> Self:
        """Start to commit."""
        self._life = AsyncExitStack()
        tasks = await self._life.enter_async_context(background_tasks())
        tasks.start_soon(self._commit_batches)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Make durable what was handed over, and close the file."""
        self._open = False
        try:
            await self._life.aclose()
        finally:
            # In this thread: nothing can cancel it, and it is the last thing that is waited for.
            batch = self._take()
            self._write(batch)
            batch.written.set()
            os.close(self._file)

    async def _commit_batches(self) -> None:
        while True:
            await self._some.wait()
            batch = self._take()
            try:
                await anyio.to_thread.run_sync(self._write, batch)
            finally:
                batch.written.set()
            await anyio.sleep(COMMIT_INTERVAL_S)

    def _take(self) -> _Batch:
        batch, self._batch, self._some = self._batch, _Batch(), anyio.Event()
        return batch

    def _write(self, batch: _Batch) -> None:
        if not batch.lines:
            return
        with self._writing:
            data = memoryview(b"".join(batch.lines))
            start = os.fstat(self._file).st_size
            try:
                while data:
                    data = data[os.write(self._file, data) :]
                os.fsync(self._file)
            except OSError as error:
                # Half a line would make the next one unreadable: nobody was told that any of this is done.
                os.ftruncate(self._file, start)
                batch.error = error


def _cut_torn_end(file: int) -> None:
    """Cut what follows the last whole line, and last lines that are no JSON: a crash can leave a block of zeros."""
    end = os.fstat(file).st_size
    while end:
        start = _line_start(file, end)
        line = os.pread(file, end - start, start)
        if line.endswith(b"\n") and _is_json(line):
            break
        end = start
    os.ftruncate(file, end)


def _line_start(file: int, end: int) -> int:
    """Where the line begins whose last byte is before `end`."""
    position = end - 1
    while position > 0:
        begin = max(0, position - _BLOCK)
        newline = os.pread(file, position - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        position = begin
    return 0


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True

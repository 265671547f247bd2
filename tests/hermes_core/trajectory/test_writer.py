from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from hermes_core.exceptions import RunDirectoryError
from hermes_core.models import Message
from hermes_core.trajectory import Trajectory, TrajectoryIndex, TrajectoryWriter, read_trajectories

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Trajectory("task", 0, "completed", 1.0, {}, (Message("user", "hi"),), (), (), "m", None, 0.0, 0.0)


def numbered(index: int) -> Trajectory:
    return replace(PLAIN, sample_index=index)


def indices(path: Path) -> list[int]:
    return [trajectory.sample_index for trajectory in read_trajectories(path)]


@pytest.mark.anyio
async def test_what_was_appended_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    async with TrajectoryWriter(file) as writer, anyio.create_task_group() as tasks:
        for index in range(100):
            tasks.start_soon(writer.append, numbered(index))
    assert sorted(indices(file)) == list(range(100))
    async with TrajectoryWriter(file) as writer:
        await writer.append(numbered(100))
        assert indices(file)[-1] == 100


@pytest.mark.anyio
async def test_appends_share_commits_and_a_lone_one_does_not_wait(tmp_path: Path) -> None:
    async with TrajectoryWriter(tmp_path / "t.jsonl") as writer:
        await writer.append(PLAIN)
        begin = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for index in range(200):
                tasks.start_soon(writer.append, numbered(index))
        # One by one, at one commit each 50 ms, it would take ten seconds.
        assert time.monotonic() - begin < 8


@pytest.mark.anyio
async def test_a_cancelled_append_is_not_lost(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    async with TrajectoryWriter(file) as writer:
        async with anyio.create_task_group() as tasks:
            for index in range(10):
                tasks.start_soon(writer.append, numbered(index))
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert sorted(indices(file)) == list(range(10))


@pytest.mark.anyio
async def test_a_cancelled_writer_closes_with_everything(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with anyio.CancelScope() as scope:
        async with TrajectoryWriter(file) as writer:
            await writer.append(PLAIN)
            scope.cancel()
            await writer.append(numbered(1))
    assert indices(file) == [0, 1]


@pytest.mark.anyio
@pytest.mark.parametrize("torn", [b'{"task_id": "x"', b"\0" * 4096, b"\0" * 10 + b"\n", b'{"a": "' + b"x" * 200_000])
async def test_a_torn_end_is_cut(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / "t.jsonl"
    async with TrajectoryWriter(file) as writer:
        await writer.append(PLAIN)
    with file.open("ab") as stream:
        stream.write(torn)
    async with TrajectoryWriter(file) as writer:
        assert indices(file) == [0]
        await writer.append(numbered(1))
    assert indices(file) == [0, 1]


@pytest.mark.anyio
async def test_a_file_has_one_writer(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    async with TrajectoryWriter(file):
        with pytest.raises(RunDirectoryError, match="another process"):
            TrajectoryWriter(file)


def test_reading_ignores_what_was_never_finished(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    TrajectoryWriter.repair(file)
    assert indices(file) == []
    file.write_text('{"half')
    assert indices(file) == []
    file.write_text("[]\n")
    with pytest.raises(RunDirectoryError, match="line 1"):
        indices(file)
    file.write_text("{}\n")
    with pytest.raises(RunDirectoryError, match="line 1"):
        indices(file)
    with pytest.raises(RunDirectoryError, match="cannot read"):
        indices(tmp_path / "absent")


@pytest.mark.anyio
async def test_an_index_finds_single_trajectories(tmp_path: Path) -> None:
    async with TrajectoryWriter(tmp_path / "trajectories.jsonl") as writer:
        for index in range(5):
            await writer.append(numbered(index))
    found = TrajectoryIndex(tmp_path)
    assert len(found) == 5
    assert ("task", 3) in found
    assert ("task", 5) not in found
    assert found.read("task", 3) == numbered(3)


WRITE_FOR_EVER = """
import anyio, sys
from dataclasses import replace
from hermes_core.models import Message
from hermes_core.trajectory import Trajectory, TrajectoryWriter

async def main():
    plain = Trajectory("task", 0, "completed", 1.0, {}, (Message("user", "x" * 3000),), (), (), "m", None, 0.0, 0.0)
    async with TrajectoryWriter(sys.argv[1]) as writer, anyio.create_task_group() as tasks:
        async def work(first):
            for index in range(first, 10**9, 4):
                await writer.append(replace(plain, sample_index=index))
                print(index, flush=True)
        for first in range(4):
            tasks.start_soon(work, first)

anyio.run(main)
"""


def test_what_was_said_to_be_done_survives_sigkill(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOR_EVER, str(file)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [int(process.stdout.readline()) for _ in range(40)]
        process.kill()
        said += [int(line) for line in process.stdout if line.endswith("\n")]
    TrajectoryWriter.repair(file)
    found = indices(file)
    assert set(said) <= set(found)
    assert len(found) == len(set(found))

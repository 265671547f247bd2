"""No sandbox outlives a start that fails, nor the backend."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from hermes_core.exceptions import SandboxLostError
from hermes_core.sandbox import StartedSandboxes

pytestmark = pytest.mark.anyio


class Box:
    """What takes a moment to stop, and remembers how often it was told to."""

    def __init__(self, name: str = "box") -> None:
        self.name = name
        self.stopped = False
        self.stops = 0
        self.let_go = anyio.Event()

    async def stop(self) -> None:
        self.stops += 1
        with anyio.CancelScope(shield=True):
            await self.let_go.wait()
        self.stopped = True


def light(name: str = "box") -> Box:
    """One that is stopped at once."""
    box = Box(name)
    box.let_go.set()
    return box


async def test_those_are_known_that_were_started_and_not_stopped() -> None:
    started = StartedSandboxes[Box]("daemon", 60.0)
    boxes = [light(), light()]
    for box in boxes:
        async with started.starting(box):
            assert box in started
    assert set(started) == set(boxes)
    await boxes[0].stop()
    assert list(started) == [boxes[1]]


async def test_what_does_not_come_up_in_time_is_stopped() -> None:
    started, box = StartedSandboxes[Box]("daemon", 0.01), light("slow")
    with pytest.raises(SandboxLostError, match=r"the daemon of sandbox slow did not come up within 0\.01 s"):
        async with started.starting(box):
            await anyio.sleep_forever()
    assert box.stopped


async def test_what_fails_to_start_is_stopped() -> None:
    started, box = StartedSandboxes[Box]("daemon", 60.0), light()
    with pytest.raises(KeyError):
        async with started.starting(box):
            raise KeyError
    assert box.stopped


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    started, box = StartedSandboxes[Box]("daemon", 60.0), light()
    with anyio.CancelScope() as scope:
        async with started.starting(box):
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert box.stopped


async def test_all_are_stopped_at_once_and_waited_for_even_if_cancelled() -> None:
    started = StartedSandboxes[Box]("daemon", 60.0)
    boxes = [Box(), Box()]
    for box in boxes:
        async with started.starting(box):
            pass
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(boxes[0].stop)  # by somebody else
        tasks.start_soon(started.stop_all)
        await anyio.wait_all_tasks_blocked()
        assert [box.stops for box in boxes] == [2, 1]
        tasks.cancel_scope.cancel()
        for box in boxes:
            box.let_go.set()
    assert all(box.stopped for box in boxes)
    await started.stop_all()
    assert [box.stops for box in boxes] == [2, 1]

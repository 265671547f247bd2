"""What sandboxes behind a process have in common, with a shell for a daemon."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest

from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import ProcessSandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import ByteStream, Process

pytestmark = pytest.mark.anyio

READY = """echo '{"pid": 7, "isolation": "none", "obstacle": null, "missing": []}'"""
UNTIL_CUT = "read line; echo 'the last slot ended' >&2"


class Shell(ProcessSandbox):
    """A script, and how often was removed what it left."""

    def __init__(self, script: str) -> None:
        super().__init__("shell", 3)
        self.removed = 0
        self._script = script

    async def spawn(self) -> None:
        with self._lifeline.open() as reading:
            self._process = await anyio.open_process(["sh", "-c", self._script], stdin=reading)

    async def ready(self) -> int:
        return (await self._ready()).pid

    async def connect(self) -> ByteStream:
        raise SandboxLostError(self._why_dead())

    async def _end(self, process: Process) -> None:
        await process.wait()

    async def _remove(self) -> None:
        self.removed += 1

    def _why_not_started(self) -> HermesError:
        return SandboxLostError(f"not started{self._said.after_colon}")

    def _why_dead(self) -> str:
        status = "none" if self._process is None else self._process.returncode
        return f"status {status}{self._said.after_colon}"


@asynccontextmanager
async def running(script: str) -> AsyncIterator[Shell]:
    """One that was started, and is stopped in the end."""
    shell = Shell(script)
    await shell.spawn()
    async with background_tasks() as tasks:
        tasks.start_soon(shell.drain)
        try:
            yield shell
        finally:
            await shell.stop()


async def test_it_lives_until_it_is_stopped_and_then_says_why_not() -> None:
    async with running(f"{READY}; {UNTIL_CUT}") as shell:
        assert (shell.name, shell.capacity, shell.token) == ("shell", 3, None)
        assert await shell.ready() == 7
        assert await shell.alive() is None
        assert not shell.stopped
        await shell.stop()
        assert shell.stopped
        assert await shell.alive() == "status none: the last slot ended"


async def test_one_that_ends_by_itself_is_dead_before_it_is_stopped() -> None:
    async with running(f"{READY}; exit 3") as shell:
        assert await shell.ready() == 7
        with anyio.fail_after(30):
            while await shell.alive() is None:  # noqa: ASYNC110 - of what others do there are no events
                await anyio.sleep(0.01)
        assert await shell.alive() == "status 3"
        assert not shell.stopped


async def test_one_that_does_not_get_ready_says_why() -> None:
    async with running("echo 'no room' >&2; exit 2") as shell:
        with pytest.raises(SandboxLostError, match="not started: no room"):
            await shell.ready()


async def test_it_is_stopped_once_whoever_asks_and_whatever_is_cancelled() -> None:
    async with running(f"{READY}; {UNTIL_CUT}") as shell:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(shell.stop)
            await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert shell.stopped
        await shell.stop()
    assert shell.removed == 1


async def test_one_that_was_never_started_is_stopped_as_well() -> None:
    shell = Shell(UNTIL_CUT)
    await shell.stop()
    assert (shell.stopped, shell.removed) == (True, 1)

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.default_plugins.local_backend import LocalBackend
from hermes_core.exceptions import ProtocolError, SandboxLostError
from hermes_core.sandbox import SandboxClient, SandboxSpec, SlotClient, greet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core.sandbox import Sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with LocalBackend() as backend:
        yield await backend.start(SandboxSpec(slots=3), f"test-{os.getpid()}", os.urandom(4).hex())


async def test_a_sandbox_tells_what_it_is(sandbox: Sandbox) -> None:
    facts = await greet(sandbox)
    assert (facts.capacity, facts.isolation, facts.obstacle) == (3, "namespaces", None)
    assert await greet(sandbox) == facts


async def test_a_sandbox_that_is_gone_does_not_answer(sandbox: Sandbox) -> None:
    await sandbox.stop()
    with pytest.raises(SandboxLostError):
        await greet(sandbox)


async def test_whoever_leaves_gives_the_slots_to_others(sandbox: Sandbox) -> None:
    async with anyio.create_task_group() as tasks:
        first, second = SandboxClient(sandbox), SandboxClient(sandbox)
        await tasks.start(first.run)
        await tasks.start(second.run)
        one, other = SlotClient(first, 0), SlotClient(second, 0)
        await one.open()
        await one.write("file", b"mine")
        with pytest.raises(ProtocolError, match="slot_busy"):
            await other.open()
        await first.leave()
        await first.wait_ended()
        with pytest.raises(SandboxLostError, match="was left"):
            await one.exec(("true",), timeout_s=5)
        await other.open()
        assert (await other.exec(("ls", "-A"), timeout_s=5)).stdout == b""
        second.close("done")

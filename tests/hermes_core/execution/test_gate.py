from __future__ import annotations

import anyio
import pytest

from hermes_core.execution._gate import Gate

pytestmark = pytest.mark.anyio


async def test_places_are_given_in_order() -> None:
    gate, order = Gate(1), []
    await gate.enter()

    async def pass_through(number: int) -> None:
        await gate.enter()
        order.append(number)
        gate.leave()

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(pass_through, number)
            await anyio.wait_all_tasks_blocked()
        assert gate.waiting == 5
        gate.leave()
    assert order == list(range(5))
    with anyio.fail_after(1):
        await gate.enter()


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    gate = Gate(1)
    await gate.enter()
    with anyio.move_on_after(0.01):
        await gate.enter()
    assert gate.waiting == 0
    gate.leave()
    with anyio.fail_after(1):
        await gate.enter()


async def test_a_waiter_that_is_cancelled_after_it_was_let_in_passes_its_place_on() -> None:
    gate = Gate(1)
    await gate.enter()
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await gate.enter()
                gate.leave()

        scopes: list[anyio.CancelScope] = []
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        gate.leave()
        scopes[0].cancel()
    with anyio.fail_after(1):
        await gate.enter()

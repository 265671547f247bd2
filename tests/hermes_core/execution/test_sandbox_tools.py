from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core.exceptions import LeaseStateError, SandboxLostError, SlotDeadError
from hermes_core.execution import CallRequest, JsonValue, Slot, ToolCall, ToolContext, ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from tests.hermes_core.conftest import OpenRig

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@dataclass
class InSlot:
    """A sandbox tool around a function of its slot."""

    function: Callable[[Slot, Mapping[str, JsonValue]], Awaitable[JsonValue]]
    name: str = "tool"
    needs_slot: bool = True
    timeout_s: float = 20.0
    lent: list[Slot] = field(default_factory=list)

    @property
    def definition(self) -> ToolDefinition:
        return ToolDefinition(self.name, "", {})

    def unavailable(self) -> str | None:
        return None

    async def run(self, arguments: Mapping[str, JsonValue], context: ToolContext, slot: Slot | None) -> JsonValue:
        assert slot is not None
        self.lent.append(slot)
        return await self.function(slot, arguments)


async def log_twice(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
    await slot.exec(f"echo {arguments['n']} begin >> log; sleep 0.01")
    await slot.exec(f"echo {arguments['n']} end >> log")
    return arguments["n"]


async def test_a_tool_has_the_slot_to_itself_for_all_of_its_commands(rig: OpenRig) -> None:
    async with rig() as r:
        tool = InSlot(log_twice)
        slot = await r.lease(trajectory_id="t", tools={"tool": tool})
        async with anyio.create_task_group() as tasks:
            for number in range(6):
                if number % 2:
                    tasks.start_soon(slot.call, ToolCall("tool", {"n": number}))
                else:
                    tasks.start_soon(slot.exec, f"echo {number} begin >> log; sleep 0.01; echo {number} end >> log")
                await anyio.wait_all_tasks_blocked()
        log = (await slot.read_file("log")).decode().splitlines()
        assert log == [f"{number} {what}" for number in range(6) for what in ("begin", "end")]


async def test_calls_of_one_slot_run_in_order_and_those_of_others_at_once(rig: OpenRig) -> None:
    async with rig() as r:
        tools = {"tool": InSlot(log_twice)}
        slots = [await r.lease(), await r.lease()]
        requests = [CallRequest(ToolCall("tool", {"n": n}), tools, slots[n % 2]) for n in range(8)]
        results = await r.executor.execute(requests)
        assert [result.output for result in results] == list(range(8))
        for which, slot in enumerate(slots):
            log = (await slot.read_file("log")).decode().splitlines()
            assert log == [f"{n} {what}" for n in range(which, 8, 2) for what in ("begin", "end")]
        status = r.executor.status()
        assert (status.requests, status.errors) == (8, 0)
        assert max(status.batch_size) >= 2  # both slots' first commands left in one write


async def test_a_tool_may_call_tools(rig: OpenRig) -> None:
    async def outer(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        inner = await slot.call(ToolCall("inner", {}))
        return inner.output

    async def inner(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        return (await slot.exec("echo inner")).stdout

    async with rig(max_in_flight=1) as r:
        tools = {"outer": InSlot(outer, "outer"), "inner": InSlot(inner, "inner")}
        slot = await r.lease(tools=tools)
        with anyio.fail_after(10):
            result = await slot.call(ToolCall("outer", {}))
        assert result.output == "inner\n"


async def test_what_a_tool_was_lent_ends_with_its_call(rig: OpenRig) -> None:
    async def release(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        await slot.release()
        return None

    async with rig() as r:
        tool = InSlot(release)
        slot = await r.lease(tools={"tool": tool})
        result = await slot.call(ToolCall("tool", {}))
        assert "cannot release" in (result.error or "")
        with pytest.raises(LeaseStateError, match="has ended"):
            await tool.lent[0].exec("true")
        assert (await slot.exec("true")).exit_code == 0


async def test_a_call_that_times_out_leaves_the_slot_usable(rig: OpenRig) -> None:
    async def hang(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        await slot.exec(r.sleep, timeout_s=60)
        return None

    async with rig() as r:
        slot = await r.lease(tools={"tool": InSlot(hang)})
        result = await slot.call(ToolCall("tool", {}), timeout_s=0.3)
        assert result.error == "timed out after 0.3 s"
        await r.quiet()
        assert (await slot.exec("echo fine")).stdout == "fine\n"


@pytest.mark.parametrize("error", [SlotDeadError("dead", limit="memory"), SandboxLostError("lost")])
async def test_a_dead_slot_and_a_lost_sandbox_are_raised(rig: OpenRig, error: Exception) -> None:
    async def fail(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        raise error

    async with rig() as r:
        slot = await r.lease(tools={"tool": InSlot(fail)})
        with pytest.raises(type(error)):
            await slot.call(ToolCall("tool", {}))
        assert (await slot.exec("true")).exit_code == 0  # its turn was given up


async def test_a_missing_file_is_an_error_result(rig: OpenRig) -> None:
    async def read(slot: Slot, arguments: Mapping[str, JsonValue]) -> JsonValue:
        return (await slot.read_file("nothing")).decode()

    async with rig() as r:
        slot = await r.lease(tools={"tool": InSlot(read)})
        result = await slot.call(ToolCall("tool", {}))
        assert not result.success
        assert "nothing" in (result.error or "")


async def test_many_slots_at_once_share_few_writes(rig: OpenRig) -> None:
    async with rig(slots=32) as r:
        slots = [await r.lease() for _ in range(32)]
        sizes = slots[0].lease.client.sandbox.batch_sizes
        before = Counter(sizes)
        async with anyio.create_task_group() as tasks:
            for slot in slots:
                tasks.start_soon(slot.exec, "true")
        assert sizes - before == Counter({32: 1})


def test_importing_execution_costs_no_pydantic_rich_or_click() -> None:
    look = (
        "import sys, hermes_core.execution, hermes_core.slots, hermes_core.sandbox;"
        "print([m for m in ('pydantic', 'rich', 'click', 'asyncio') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() in ("[]", "['asyncio']")

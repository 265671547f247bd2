from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hermes_core import Hermes, ToolCall, ToolResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hermes_core.execution import JsonValue

    Call = Callable[..., Awaitable[ToolResult]]

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    async with Hermes(toolsets=["sandbox"]) as hermes, hermes.lease() as slot:

        async def run(name: str, **arguments: JsonValue) -> ToolResult:
            return await slot.call(ToolCall(name, arguments))

        yield run


async def test_terminal_gives_output_and_exit_code(call: Call) -> None:
    done = await call("terminal", command="echo out; echo err >&2; exit 7")
    assert done.success
    assert done.output == {"exit_code": 7, "stdout": "out\n", "stderr": "err\n"}


async def test_every_call_is_a_fresh_shell_and_files_persist(call: Call) -> None:
    await call("terminal", command="cd /tmp; X=1; echo kept > /workspace/file")
    done = await call("bash", command="pwd; echo [$X]; cat file")
    assert done.output == {"exit_code": 0, "stdout": "/workspace\n[]\nkept\n", "stderr": ""}


async def test_a_timeout_is_clamped_and_told(call: Call) -> None:
    done = await call("terminal", command="echo begun; sleep 60", timeout=0.01)
    assert done.output == {"exit_code": None, "stdout": "begun\n", "stderr": "", "error": "killed after 1 s"}


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), "soon"])
async def test_a_timeout_must_be_a_number(call: Call, timeout: float | str) -> None:
    done = await call("terminal", command="true", timeout=timeout)
    assert not done.success
    assert "timeout" in str(done.error)


async def test_background_is_refused_and_policy_arguments_are_dropped(call: Call) -> None:
    assert "not supported" in str((await call("terminal", command="true", background=True)).error)
    assert (await call("terminal", command="true", background=False, network=True, isolation="none")).success
    assert "Extra inputs" in str((await call("terminal", command="true", colour="red")).error)


async def test_long_output_keeps_head_and_tail(call: Call) -> None:
    done = await call("terminal", command="seq 100000")
    assert isinstance(done.output, dict)
    said = str(done.output["stdout"])
    assert said.startswith("1\n2\n")
    assert said.endswith("99999\n100000\n")
    assert "characters left out]" in said
    assert len(said) < 51_000


async def test_files_are_written_and_read(call: Call) -> None:
    wrote = await call("write_file", path="deep/er/a.txt", content="grüße")
    assert wrote.output == "wrote 7 bytes to deep/er/a.txt"
    assert (await call("read_file", path="deep/er/a.txt")).output == "grüße"


async def test_file_errors_are_told_in_one_line(call: Call) -> None:
    for path in ("missing", "/etc", "/proc/1/mem", "/dev/zero"):
        result = await call("read_file", path=path)
        assert not result.success
        assert result.error
        assert "\n" not in result.error
    await call("terminal", command="head -c 500000 /dev/zero > big")
    assert not (await call("read_file", path="big")).success
    assert not (await call("write_file", path="x", content="y" * 100_001)).success

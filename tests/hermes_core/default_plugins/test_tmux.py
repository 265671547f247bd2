from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hermes_core import Hermes, ToolCall, ToolResult
from hermes_core.terminals import AsciicastDecoder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hermes_core.execution import JsonValue

    Tmux = Callable[..., Awaitable[ToolResult]]

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]


@pytest.fixture
async def tmux() -> AsyncIterator[Tmux]:
    async with Hermes(toolsets=["terminal_stateful"]) as hermes, hermes.lease() as slot:

        async def run(action: str, **arguments: JsonValue) -> ToolResult:
            return await slot.call(ToolCall("tmux", {"action": action, **arguments}))

        yield run


async def output(result: Awaitable[ToolResult]) -> dict[str, Any]:
    found = await result
    assert found.success, found.error
    assert isinstance(found.output, dict)
    return found.output


async def test_a_session_from_start_to_stop(tmux: Tmux) -> None:
    assert await output(tmux("start")) == {"running": True, "rows": 40, "cols": 120}
    sent = await output(tmux("send_keys", keys=["sleep 1; echo done $((6 * 7))", "Enter"], block=True))
    assert sent["timed_out"] is False
    assert sent["waited_s"] >= 1
    captured = await output(tmux("capture"))
    assert "\ndone 42\n" in captured["screen"]
    assert captured["cursor"]["row"] == captured["screen"].count("\n")
    resized = await output(tmux("resize", rows=50))
    assert (resized["rows"], resized["cols"]) == (50, 120)
    await output(tmux("send_keys", keys="stty size\n", block=True))
    captured = await output(tmux("capture"))
    assert "\n50 120\n" in captured["screen"]

    decoder = AsciicastDecoder()
    begin = 0
    while True:
        streamed = await output(tmux("stream", max_bytes=500))
        assert streamed["offset"] == begin
        if not streamed["data"]:
            break
        decoder.feed(streamed["data"])
        begin = streamed["next_offset"]
    assert decoder.render() == captured["screen"]
    assert (await output(tmux("stream", reset=True)))["data"].startswith('{"version": 2')
    assert (await output(tmux("stream", offset=2, max_bytes=7)))["data"] == "version"

    assert (await output(tmux("stop"))) == {"running": False, "rows": 50, "cols": 120, "exit_code": None}
    assert "begin with action start" in str((await tmux("capture")).error)
    assert (await output(tmux("start", rows=24, cols=80)))["cols"] == 80


async def test_an_exit_of_the_shell_is_told(tmux: Tmux) -> None:
    await output(tmux("start"))
    sent = await output(tmux("send_keys", keys=["exit 3", "Enter"], block=True))
    assert (sent["running"], sent["exit_code"]) == (False, 3)
    assert "has ended" in str((await tmux("send_keys", keys="x")).error)
    assert (await output(tmux("stop")))["exit_code"] == 3


async def test_several_sessions(tmux: Tmux) -> None:
    await output(tmux("start"))
    await output(tmux("start", session="other"))
    await output(tmux("send_keys", keys=["echo only here", "Enter"], session="other", block=True))
    assert "only here" not in (await output(tmux("capture")))["screen"]
    assert "only here" in (await output(tmux("capture", session="other")))["screen"]
    for number in range(6):
        await output(tmux("start", session=str(number)))
    assert "8 terminals are open" in str((await tmux("start", session="more")).error)


@pytest.mark.parametrize(
    ("action", "arguments", "error"),
    [
        ("start", {}, "was started before"),
        ("start", {"session": "x", "rows": 9}, "out of bounds"),
        ("start", {"session": "x", "cols": 501}, "out of bounds"),
        ("resize", {"cols": 19}, "out of bounds"),
        ("send_keys", {}, "needs keys"),
        ("send_keys", {"keys": "C-nothing"}, "unknown key"),
        ("send_keys", {"keys": "x", "max_wait_s": 1000}, "max_wait_s"),
        ("send_keys", {"keys": 5}, "keys"),
        ("stream", {"offset": 1_000_000}, "outside of the recording"),
        ("stream", {"offset": -1}, "offset"),
        ("capture", {"session": "none"}, "no terminal 'none'"),
        ("attach", {}, "action"),
    ],
)
async def test_what_cannot_be_done_is_told(
    tmux: Tmux, action: str, arguments: dict[str, JsonValue], error: str
) -> None:
    await output(tmux("start"))
    result = await tmux(action, **arguments)
    assert not result.success
    assert error in str(result.error)


async def test_a_wait_that_is_over_is_told(tmux: Tmux) -> None:
    await output(tmux("start"))
    sent = await output(tmux("send_keys", keys=["sleep 1000", "Enter"], block=True, max_wait_s=1.5))
    assert sent["timed_out"] is True
    assert (await output(tmux("send_keys", keys="C-c", block=True)))["timed_out"] is False

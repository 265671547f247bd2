"""The tool `tmux`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from hermes_core.exceptions import ToolError
from hermes_core.execution import JsonValue, Slot
from hermes_core.tools import tool

if TYPE_CHECKING:
    from hermes_core.terminals import TerminalSession

__all__ = ["tmux"]

Seconds = Annotated[float, Field(ge=0, le=600, allow_inf_nan=False)]
MOST_SESSIONS = 8


@tool(name="tmux", timeout_s=660.0, ignores=("network", "allow_network", "require_sandbox", "isolation"))
async def tmux(
    action: Literal["start", "send_keys", "capture", "stream", "resize", "stop"],
    slot: Slot,
    keys: str | list[str] | None = None,
    block: bool = False,
    min_wait_s: Seconds = 0.0,
    max_wait_s: Seconds = 180.0,
    literal: bool = False,
    history: bool = False,
    offset: Annotated[int, Field(ge=0)] | None = None,
    reset: bool = False,
    max_bytes: Annotated[int, Field(ge=1, le=50_000)] = 20_000,
    rows: int | None = None,
    cols: int | None = None,
    session: str = "main",
) -> JsonValue:
    """Work in a terminal with a shell in it: full-screen programs, prompts, long-running commands.

    Begin with `start`, then `send_keys` and `capture`. The terminal persists between calls.

    Args:
        action: `start` a terminal; `send_keys` to it; `capture` what it shows; `stream` its recording (asciicast);
            `resize` it; `stop` it.
        keys: For send_keys: text, or key names as in tmux (Enter, Escape, C-c, Up, F1, M-x), or a list of both. A text
            is typed as it is: end a command with Enter as its own element.
        block: For send_keys: wait until the shell is back at its prompt.
        min_wait_s: For send_keys: wait at least so many seconds.
        max_wait_s: For send_keys: wait at most so many seconds.
        literal: For send_keys: type names of keys as text.
        history: For capture: with the lines that scrolled out at the top.
        offset: For stream: where to begin in the recording; after the last stream by default.
        reset: For stream: begin at its beginning.
        max_bytes: For stream: how much to return at most.
        rows: For start and resize: height, 10 to 200; 40 by default.
        cols: For start and resize: width, 20 to 500; 120 by default.
        session: Name of the terminal, if several are needed.
    """
    if action == "start":
        return await _start(slot, session, rows, cols)
    pane = slot.belongings.find(_key(session), _Pane)
    if pane is None:
        raise ToolError(f"there is no terminal {session!r}: begin with action start")
    terminal = slot.attached(pane.terminal)
    if action == "send_keys":
        if keys is None:
            raise ToolError("send_keys needs keys")
        sent = await terminal.send_keys(
            keys, block=block, min_wait_s=min_wait_s, max_wait_s=max(min_wait_s, max_wait_s), literal=literal
        )
        return {**_state(terminal), "waited_s": round(sent.waited_s, 3), "timed_out": sent.timed_out}
    if action == "capture":
        screen = await terminal.capture(history=history)
        row, column = terminal.screen.cursor
        return {**_state(terminal), "screen": screen, "cursor": {"row": row, "col": column}}
    if action == "stream":
        begin = 0 if reset else pane.streamed if offset is None else offset
        text, pane.streamed = await terminal.stream(begin, max_bytes)
        return {**_state(terminal), "data": text, "offset": begin, "next_offset": pane.streamed}
    if action == "resize":
        size = terminal.screen
        await terminal.resize(rows=rows or size.rows, columns=cols or size.columns)
        return _state(terminal)
    slot.belongings.drop(_key(session))
    await terminal.close()
    return _state(terminal)


class _Pane:
    """A terminal of a lease.

    Attributes:
        terminal: Its session.
        streamed: Where the last stream ended.
    """

    def __init__(self, terminal: TerminalSession) -> None:
        self.terminal = terminal
        self.streamed = 0


async def _start(slot: Slot, session: str, rows: int | None, cols: int | None) -> JsonValue:
    if slot.belongings.find(_key(session), _Pane) is not None:
        raise ToolError(f"terminal {session!r} was started before: stop it first, or choose another session name")
    if slot.belongings.count(_Pane) >= MOST_SESSIONS:
        raise ToolError(f"{MOST_SESSIONS} terminals are open: stop one first")
    terminal = await slot.terminal(rows=40 if rows is None else rows, columns=120 if cols is None else cols)
    slot.belongings.keep(_key(session), _Pane(terminal))
    await terminal.send_keys("", block=True, max_wait_s=2.0)  # until its first prompt is there
    return _state(terminal)


def _key(session: str) -> str:
    return f"tmux: {session}"


def _state(terminal: TerminalSession) -> dict[str, JsonValue]:
    state: dict[str, JsonValue] = {
        "running": terminal.running,
        "rows": terminal.screen.rows,
        "cols": terminal.screen.columns,
    }
    if not terminal.running:
        state["exit_code"] = terminal.exit_code
    if terminal.lost_bytes:
        state["lost_bytes"] = terminal.lost_bytes
    if terminal.recording.cut:
        state["recording_cut"] = True
    return state

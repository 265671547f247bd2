from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_core import Hermes
from hermes_core.exceptions import SlotJobError, UsageError
from hermes_core.terminals import AsciicastDecoder, Recording

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hermes_core import Slot
    from hermes_core.terminals import TerminalSession

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

MENU = """
import curses

def main(screen):
    curses.curs_set(0)
    choices, at = ["alpha", "beta", "gamma"], 0
    while True:
        screen.erase()
        screen.box()
        for row, choice in enumerate(choices):
            screen.addstr(row + 1, 2, ("> " if row == at else "  ") + choice)
        screen.refresh()
        key = screen.getch()
        if key == curses.KEY_DOWN:
            at = min(at + 1, 2)
        elif key == curses.KEY_UP:
            at = max(at - 1, 0)
        elif key in (10, 13, curses.KEY_ENTER):
            return choices[at]
        elif key == curses.KEY_F2:
            choices[at] = choices[at].upper()

print("chosen:", curses.wrapper(main))
"""


def program(*names: str) -> str:
    """The first of some programs that slots have, which see the /usr of this machine."""
    for name in names:
        for folder in ("/usr/bin", "/bin"):
            if Path(folder, name).exists():
                return name
    pytest.skip(f"none of these is installed in /usr/bin: {', '.join(names)}")


@pytest.fixture
async def slot() -> AsyncIterator[Slot]:
    async with Hermes() as hermes, hermes.lease() as leased:
        yield leased


async def shows(terminal: TerminalSession, text: str) -> str:
    """Wait until the screen has a text on it."""
    with anyio.fail_after(30):
        while True:
            screen = await terminal.capture()
            if text in screen:
                return screen
            await anyio.sleep(0.02)


async def replayed(terminal: TerminalSession) -> str:
    decoder, offset = AsciicastDecoder(), 0
    while True:
        text, following = await terminal.stream(offset, 1000)
        if following == offset:
            break
        decoder.feed(text)
        offset = following
    assert decoder.malformed == 0
    return decoder.render()


async def test_a_shell_keeps_its_state_and_is_waited_for(slot: Slot) -> None:
    async with await slot.terminal() as terminal:
        sent = await terminal.send_keys(["cd /tmp; X=5; sleep 1; echo done $X", "Enter"], block=True)
        assert not sent.timed_out
        assert sent.waited_s >= 1
        assert "\ndone 5\n" in await terminal.capture()
        await terminal.send_keys("pwd; echo again $X\n", block=True)
        assert "\n/tmp\nagain 5\n" in await terminal.capture()
        assert await replayed(terminal) == await terminal.capture()


async def test_what_does_not_end_in_time_is_said(slot: Slot) -> None:
    async with await slot.terminal() as terminal:
        sent = await terminal.send_keys(["sleep 100", "Enter"], block=True, max_wait_s=1.5)
        assert sent.timed_out
        sent = await terminal.send_keys("C-c", block=True)
        assert not sent.timed_out
        sent = await terminal.send_keys("", min_wait_s=0.3)
        assert sent.waited_s >= 0.3
        with pytest.raises(UsageError, match="at least 5 s"):
            await terminal.send_keys("x", min_wait_s=5, max_wait_s=1)


async def test_the_slot_is_not_held_while_a_terminal_is_waited_for(slot: Slot) -> None:
    async with await slot.terminal() as terminal, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: terminal.send_keys(["while [ ! -e go ]; do sleep 0.1; done", "Enter"], block=True))
        await shows(terminal, "sleep 0.1")
        with anyio.fail_after(20):
            assert (await slot.exec("touch /workspace/go")).exit_code == 0


async def test_a_new_size_is_visible_to_programs(slot: Slot) -> None:
    async with await slot.terminal(rows=30, columns=100) as terminal:
        await terminal.send_keys(["stty size", "Enter"], block=True)
        assert "\n30 100\n" in await terminal.capture()
        await terminal.resize(rows=50, columns=132)
        await terminal.send_keys(["stty size", "Enter"], block=True)
        assert "\n50 132\n" in await terminal.capture()
        assert (terminal.screen.rows, terminal.screen.columns) == (50, 132)
        assert await replayed(terminal) == await terminal.capture()
        for rows, columns in ((9, 80), (201, 80), (24, 19), (24, 501)):
            with pytest.raises(UsageError, match="out of bounds"):
                await terminal.resize(rows=rows, columns=columns)


async def test_the_end_of_a_program_is_told(slot: Slot) -> None:
    terminal = await slot.terminal(argv=["sh", "-c", "echo last words; exit 3"])
    await shows(terminal, "last words")
    with anyio.fail_after(20):
        while terminal.running:
            await terminal.capture()
    assert terminal.exit_code == 3
    with pytest.raises(SlotJobError, match="has ended"):
        await terminal.send_keys("x")
    assert await terminal.close() == 3
    assert "last words" in await terminal.capture()


async def test_closing_kills_what_runs(slot: Slot) -> None:
    terminal = await slot.terminal()
    await terminal.send_keys(["sleep 4242 & sleep 4242", "Enter"])
    with anyio.fail_after(20):
        while (await slot.exec("cat /proc/[0-9]*/comm")).stdout.count("sleep") < 2:
            await terminal.capture()
    assert await terminal.close() is None
    assert terminal.signal == 9
    with anyio.fail_after(20):  # the kernel takes its time to take a killed one away
        while "sleep" in (await slot.exec("cat /proc/[0-9]*/comm")).stdout:
            await anyio.lowlevel.checkpoint()


async def test_a_program_that_is_not_there_is_an_error(slot: Slot) -> None:
    with pytest.raises(SlotJobError, match="not found"):
        await slot.terminal(argv=["no-such-program"])


async def test_history_has_what_scrolled_out(slot: Slot) -> None:
    async with await slot.terminal(rows=10) as terminal:
        await terminal.send_keys(["seq 100 150", "Enter"], block=True)
        assert "\n110\n" not in await terminal.capture()
        assert "\n110\n" in await terminal.capture(history=True)


async def test_output_that_was_lost_is_said(slot: Slot) -> None:
    async with await slot.terminal(argv=["sh", "-c", "seq 1000000; echo the end; exec cat"]) as terminal:
        for _ in range(200):
            await anyio.sleep(0.05)
            if (await slot.process(terminal.job).read(6_000_000)).end > 6_000_000:
                break
        await shows(terminal, "the end")
        assert terminal.lost_bytes > 1_000_000
        text = terminal.recording.read(0, 1 << 30)
        assert "bytes of output were lost" in text
        assert await replayed(terminal) == await terminal.capture()


async def test_it_is_recorded_to_a_file(slot: Slot, tmp_path: Path) -> None:
    async with await slot.terminal(recording=Recording(tmp_path / "a.cast")) as terminal:
        await terminal.send_keys(["echo grüße", "Enter"], block=True)
        screen = await terminal.capture()
    lines = (tmp_path / "a.cast").read_text().splitlines()
    header, *events = map(json.loads, lines)
    assert (header["version"], header["width"], header["height"]) == (2, 120, 40)
    assert header["env"]["TERM"] == "xterm-256color"
    assert {event[1] for event in events} == {"i", "o"}
    times = [event[0] for event in events]
    assert times == sorted(times)
    decoder = AsciicastDecoder()
    decoder.feed("\n".join(lines) + "\n")
    assert decoder.render() == screen


async def test_vi_edits_a_file(slot: Slot) -> None:
    editor = program("vi", "vim.tiny", "vim")
    await slot.write_file("poem.txt", "roses are red\nviolets are blue\n")
    async with await slot.terminal() as terminal:
        await terminal.send_keys("echo before", literal=True)
        await terminal.send_keys("Enter", block=True)
        before = await terminal.capture()
        await terminal.send_keys([f"{editor} poem.txt", "Enter"])
        screen = await shows(terminal, "violets are blue")
        assert "echo before" not in screen
        await terminal.send_keys(["Down", "o"])
        await terminal.send_keys(["hermes is grey", "Escape"], min_wait_s=0.5)
        await shows(terminal, "hermes is grey")
        await terminal.send_keys([":wq", "Enter"], block=True)
        after = await terminal.capture()
        assert after.startswith(before)
        assert "roses" not in after
        assert await replayed(terminal) == after
    assert await slot.read_file("poem.txt") == b"roses are red\nviolets are blue\nhermes is grey\n"


async def test_less_pages_through_a_file(slot: Slot) -> None:
    pager = program("less")
    await slot.exec("seq 1 1000 > numbers")
    async with await slot.terminal(rows=20) as terminal:
        await terminal.send_keys([f"{pager} numbers", "Enter"])
        assert (await shows(terminal, "19")).startswith("1\n2\n3\n")
        await terminal.send_keys("PageDown")
        assert (await shows(terminal, "38")).startswith("20\n")
        await terminal.send_keys(["End"])
        await terminal.send_keys("G")
        await shows(terminal, "1000")
        await terminal.send_keys(["/^500$", "Enter"])
        await terminal.send_keys(["g", "/^500$", "Enter"])
        assert (await shows(terminal, "518")).startswith("500\n501\n")
        sent = await terminal.send_keys("q", block=True)
        assert not sent.timed_out
        assert await replayed(terminal) == await terminal.capture()


async def test_top_shows_the_processes_of_the_slot(slot: Slot) -> None:
    monitor = program("top")
    async with await slot.terminal() as terminal:
        await terminal.send_keys([f"{monitor} -d 0.5", "Enter"])
        screen = await shows(terminal, "COMMAND")
        assert "PID" in screen
        await terminal.send_keys("q", block=True)
        assert not terminal.screen.cursor_hidden
        assert terminal.running


async def test_a_menu_is_driven_with_arrow_keys(slot: Slot) -> None:
    if (await slot.exec("/usr/bin/python3 -c 'import curses'")).exit_code:
        pytest.skip("no /usr/bin/python3 with curses")
    await slot.write_file("menu.py", MENU)
    async with await slot.terminal(rows=12, columns=40) as terminal:
        await terminal.send_keys(["/usr/bin/python3 menu.py", "Enter"])
        screen = await shows(terminal, "> alpha")
        assert screen.startswith("┌" + "─" * 38 + "┐\n│ > alpha")
        assert terminal.screen.alternate
        await terminal.send_keys(["Down", "Down"])
        await shows(terminal, "> gamma")
        await terminal.send_keys(["Up", "F2"])
        await shows(terminal, "> BETA")
        await terminal.send_keys("Enter", block=True)
        screen = await shows(terminal, "chosen: BETA")
        assert "alpha" not in screen
        assert await replayed(terminal) == screen


def test_a_terminal_from_synchronous_code() -> None:
    from hermes_core.sync import Hermes as SyncHermes

    with SyncHermes() as hermes, hermes.lease() as slot, slot.terminal(rows=24, columns=80) as terminal:
        assert not terminal.send_keys(["echo $((6 * 7))", "Enter"], block=True).timed_out
        assert "\n42\n" in terminal.capture()
        terminal.resize(rows=30, columns=90)
        assert terminal.stream()[0].startswith('{"version": 2')
        assert terminal.close() is None

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_core.terminals import TerminalScreen


def shown(data: bytes | str, columns: int = 20, rows: int = 5) -> str:
    screen = TerminalScreen(columns, rows)
    screen.feed(data)
    return screen.render()


@pytest.mark.parametrize(
    ("data", "screen"),
    [
        ("one\r\ntwo\r\n\r\n", "one\ntwo"),
        ("  spaces  ", "  spaces"),
        ("\r\n\r\nthird", "\n\nthird"),
        ("a" * 25, "a" * 20 + "\n" + "a" * 5),
        ("a" * 20 + "\r\nb", "a" * 20 + "\nb"),
        ("abc\x1b[2Dx", "axc"),
        ("abc\x1b[1;2H\x1b[K", "a"),
        ("abc\r\x1b[1P", "bc"),
        ("abc\r\x1b[2@", "  abc"),
        ("abc\r\x1b[4hx", "xabc"),
        ("a\r\nb\r\nc\x1b[1;1H\x1b[L", "\na\nb\nc"),
        ("a\r\nb\r\nc\x1b[1;1H\x1b[M", "b\nc"),
        ("a\r\n\r\nc\x1b[1;1H\x1b[M", "\nc"),
        ("a\r\nb\x1b[2J", ""),
        ("a\r\nb\r\nc\x1b[2;1H\x1b[J", "a"),
        ("1\r\n2\r\n3\r\n4\r\n5\r\n6", "2\n3\n4\n5\n6"),
        ("1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4;1H\n", "1\n3\n4\n\n5"),
        ("1\r\n2\r\n3\x1b[S", "2\n3"),
        ("1\r\n2\r\n3\x1b[T", "\n1\n2\n3"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b(0lqk\x1b(B l", "┌─┐ l"),
        ("a\tb", "a       b"),
        ("wide 你好!", "wide 你好!"),
        ("e\u0301", "é"),
        ("你\u0301", "你\u0301"),
        ("a\u200bb\x85c", "abc"),
        ("abc\x1b7\x1b[3;3Hx\x1b8d", "abcd\n\n  x"),
        ("text\x1bcnew", "new"),
        ("\x1b[!pok", "ok"),
        ("\x1b[=1;1uok", "ok"),
        ("\x1b[>4;2mok", "ok"),
        ("\x1b[?2026$pok", "ok"),
        ("\x1b[2 qok", "ok"),
        ("\x1b]0;title\x07ok", "ok"),
        ("\x1b]0;title\x1b\\ok", "ok"),
        ("\x1bP+q436f\x1b\\ok", "ok"),
        ("\x1bP never ended\r\nok", "\nok"),
        ("\x1b]52;c;\x1b[2;1Hok", "\nok"),
        ("\x1b[3\r\n1mok", "\nok"),
        ("\x1b[12\x18ok", "ok"),
    ],
)
def test_what_is_shown(data: str, screen: str) -> None:
    assert shown(data) == screen


def test_a_character_may_come_in_pieces() -> None:
    screen = TerminalScreen(20, 5)
    for byte in "grüße \x1b[1m你\x1b[0m".encode():
        screen.feed(bytes((byte,)))
    assert screen.render() == "grüße 你"


def test_what_is_no_utf8_is_replaced() -> None:
    assert shown(b"a\xffb") == "a\ufffdb"


@pytest.mark.parametrize("mode", [47, 1047, 1049])
def test_the_shells_screen_comes_back(mode: int) -> None:
    screen = TerminalScreen(20, 5)
    screen.feed("$ vi\r\n")
    screen.feed(f"\x1b[?{mode}h\x1b[2J\x1b[1;1Hfull screen\r\n" + "line\r\n" * 20)
    assert screen.alternate
    assert "full screen" not in screen.render()
    assert screen.render().startswith("line")
    screen.feed(f"\x1b[?{mode}l$ ")
    assert not screen.alternate
    assert screen.render_history() == "$ vi\n$"
    assert screen.cursor == (1, 2)


def test_the_screen_below_is_resized_too() -> None:
    screen = TerminalScreen(20, 5)
    screen.feed("1\r\n2\r\n3\r\n$ \x1b[?1049h")
    screen.resize(10, 2)
    screen.feed("full\x1b[?1049l")
    assert screen.render() == "3\n$"
    assert screen.render_history() == "1\n2\n3\n$"
    assert screen.cursor == (1, 2)


def test_history_keeps_what_scrolled_out() -> None:
    screen = TerminalScreen(20, 3, history=4)
    screen.feed("".join(f"{n}\r\n" for n in range(10)))
    assert screen.render() == "8\n9"
    assert screen.render_history() == "4\n5\n6\n7\n8\n9"
    screen.feed("\x1b[3J")
    assert screen.render_history() == "8\n9"


def test_resizing_keeps_the_end() -> None:
    screen = TerminalScreen(20, 5)
    screen.feed("1\r\n2\r\n3\r\n4\r\n")
    screen.resize(20, 3)
    assert screen.render() == "3\n4"
    screen.resize(30, 10)
    assert screen.render() == "3\n4"
    assert (screen.columns, screen.rows) == (30, 10)
    screen.feed("5")
    assert screen.render() == "3\n4\n5"


def test_modes_that_keys_and_readers_ask_for() -> None:
    screen = TerminalScreen()
    screen.feed("\x1b[?1h\x1b[?25l")
    assert screen.application_cursor
    assert screen.cursor_hidden
    screen.feed("\x1b[?1;25;1000;2004l\x1b[?25h")
    assert not screen.application_cursor
    assert not screen.cursor_hidden


SEQUENCES = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=20).map(str.encode),
    st.builds(
        lambda prefix, numbers, final: f"\x1b[{prefix}{';'.join(map(str, numbers))}{final}".encode(),
        st.sampled_from(["", "?", ">", "!"]),
        st.lists(st.one_of(st.integers(0, 30), st.sampled_from([47, 1049, 9999, 10**30])), max_size=4),
        st.characters(min_codepoint=0x20, max_codepoint=0x7E),
    ),
    st.sampled_from([b"\x1bM", b"\x1bD", b"\x1b7", b"\x1b8", b"\x1bc", b"\x1b#8", b"\x1b(0", b"\n" * 9, b"\x1b[?6h"]),
    st.tuples(st.just("resize"), st.integers(1, 40), st.integers(1, 12)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(SEQUENCES, max_size=40))
def test_nothing_makes_it_fail_or_leave_its_bounds(pieces: list[bytes | tuple[str, int, int]]) -> None:
    screen = TerminalScreen(20, 5, history=10)
    for piece in pieces:
        if isinstance(piece, tuple):
            screen.resize(piece[1], piece[2])
        else:
            screen.feed(piece)
        row, column = screen.cursor
        assert 0 <= row < screen.rows
        assert 0 <= column < screen.columns
    assert len(screen.render().split("\n")) <= screen.rows
    assert len(screen.render_history().split("\n")) <= screen.rows + 10


@pytest.mark.parametrize(
    "endless",
    [
        "a\u0301\u0302\u0303",
        "\u0301",
        "\x1b7",
        "\x1b[1;",
        "9",
        ";",
        "\x1b]0;",
        "x",
        "\x1b[?47h",
        "\x1b[?1h\x1b[4h",
        "\x1bH\x1b[C",
    ],
)
def test_memory_does_not_grow_with_what_is_written(endless: str) -> None:
    screen = TerminalScreen(20, 5, history=10)
    screen.feed("\x1b[" if endless in "9;" else "")
    screen.feed(endless * 2000)
    tracemalloc.start()
    try:
        for _ in range(20):
            screen.feed(endless * 2000)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100_000

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_core.exceptions import UsageError
from hermes_core.terminals import AsciicastDecoder, AsciicastWriter, Recording, TerminalScreen

if TYPE_CHECKING:
    from pathlib import Path


def recorded() -> str:
    file = io.StringIO()
    writer = AsciicastWriter(file.write, 30, 6, timestamp=1700000000.9, env={"TERM": "xterm-256color"})
    writer.output(0.5, b"gr\xc3")
    writer.output(0.7, b"\xbc\xc3\x9fe\r\n")
    writer.input(0.6, b"q\r")
    writer.resize(1.0, 40, 10)
    writer.output(1.25, "end")
    return file.getvalue()


def test_a_recording_is_asciicast_version_2() -> None:
    """As https://docs.asciinema.org/manual/asciicast/v2/ has it."""
    header, *events = [json.loads(line) for line in recorded().splitlines()]
    assert header == {
        "version": 2,
        "width": 30,
        "height": 6,
        "timestamp": 1700000000,
        "env": {"TERM": "xterm-256color"},
    }
    assert events == [
        [0.5, "o", "gr"],
        [0.7, "o", "üße\r\n"],
        [0.7, "i", "q\r"],
        [1.0, "r", "40x10"],
        [1.25, "o", "end"],
    ]
    assert recorded().isascii()


def test_what_was_recorded_is_shown() -> None:
    decoder = AsciicastDecoder()
    decoder.feed(recorded())
    assert decoder.render() == "grüße\nend"
    assert (decoder.screen.columns, decoder.screen.rows) == (40, 10)
    assert decoder.malformed == 0


@pytest.mark.parametrize("as_bytes", [False, True])
def test_it_may_come_in_pieces(as_bytes: bool) -> None:
    decoder = AsciicastDecoder()
    text = recorded() + json.dumps([2, "o", "你"], ensure_ascii=False) + "\n"
    pieces: list[str | bytes] = [bytes((byte,)) for byte in text.encode()] if as_bytes else list(text)
    for piece in pieces:
        decoder.feed(piece)
    assert decoder.render() == "grüße\nend你"


def test_without_a_header_it_is_80_by_24() -> None:
    decoder = AsciicastDecoder()
    decoder.feed('[0, "o", "hello"]\n')
    assert decoder.render() == "hello"
    assert (decoder.screen.columns, decoder.screen.rows) == (80, 24)


@pytest.mark.parametrize(
    "size",
    ['"30x7"', '{"columns": 30, "rows": 7}', '{"cols": 30, "rows": 7}', '{"width": 30, "height": 7}', "[30, 7]"],
)
def test_a_resize_has_many_spellings(size: str) -> None:
    decoder = AsciicastDecoder()
    decoder.feed(f'[1, "r", {size}]\n')
    assert (decoder.screen.columns, decoder.screen.rows) == (30, 7)
    assert decoder.malformed == 0


def test_version_3_has_its_size_elsewhere() -> None:
    decoder = AsciicastDecoder()
    decoder.feed('{"version": 3, "term": {"cols": 30, "rows": 7}}\n[0.1, "o", "x"]\n[0.1, "x", "0"]\n')
    assert (decoder.screen.columns, decoder.screen.rows) == (30, 7)
    assert decoder.malformed == 0


MALFORMED = [
    "{",
    "[1]",
    '"text"',
    '[0, "o", 5]',
    '["0", "o", "x"]',
    '[0, "r", "0x5"]',
    '[0, "r", "1000000x1000000"]',
    '[0, "r", [1, "2"]]',
    '[0, "r", null]',
    '[0, "r", "30x7x5"]',
    '[0, "r", "²x7"]',
    '{"version": 2}',
    "[" * 100_000,
    "9" * 10_000,
]


@pytest.mark.parametrize("line", MALFORMED)
def test_what_is_malformed_is_counted_and_left_out(line: str) -> None:
    decoder = AsciicastDecoder()
    decoder.feed(f'[0, "o", "a"]\n\n{line}\n[0, "o", "b"]\n')
    assert decoder.malformed == 1
    assert decoder.render().endswith("b")


def test_a_line_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hermes_core.terminals._asciicast.LONGEST_LINE", 1000)
    decoder = AsciicastDecoder()
    for _ in range(100):
        decoder.feed("x" * 100)
    decoder.feed('\n[0, "o", "after"]\n')
    assert (decoder.malformed, decoder.render()) == (1, "after")


def test_it_can_begin_anew() -> None:
    decoder = AsciicastDecoder()
    decoder.feed('{\n[0, "o", "old"]\n[0, "o", ')
    decoder.reset()
    decoder.feed('[0, "o", "new"]\n')
    assert (decoder.malformed, decoder.render()) == (0, "new")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20))
def test_a_recording_shows_what_the_terminal_showed(pieces: list[bytes]) -> None:
    recording, decoder = Recording(), AsciicastDecoder()
    writer, screen = AsciicastWriter(recording.append, 20, 5), TerminalScreen(20, 5)
    for number, piece in enumerate(pieces):
        screen.feed(writer.output(number, piece))
    decoder.feed(recording.read(0, recording.size))
    assert decoder.render() == screen.render()
    assert decoder.malformed == 0


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.binary()))
def test_no_stream_makes_the_decoder_fail(data: str | bytes) -> None:
    decoder = AsciicastDecoder()
    decoder.feed(data)
    decoder.render()


@pytest.mark.parametrize("in_file", [False, True])
def test_a_recording_is_kept_up_to_a_bound_and_says_so(in_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "session.cast" if in_file else None
    recording = Recording(path, most_bytes=1000)
    writer = AsciicastWriter(recording.append, 20, 5)
    for number in range(100):
        writer.output(number, "x" * 50)
    assert recording.cut
    text = recording.read(0, 10_000)
    assert len(text) == recording.size < 1200
    assert "recording cut after" in json.loads(text.splitlines()[-1])[2]
    assert recording.read(5, 10) == text[5:15]
    assert recording.read(10_000, 10) == ""
    if path is not None:
        assert path.read_text() == text


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.cast").write_text("precious")
    with pytest.raises(UsageError, match="cannot record"):
        Recording(tmp_path / "a.cast")
    with pytest.raises(UsageError, match="cannot record"):
        Recording(tmp_path / "no" / "folder.cast")

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_sandboxd import MAX_BODY, MAX_LINE, FrameDecoder, FrameError, encode_frame

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(), inner, max_size=8),
    max_leaves=20,
)
_messages = st.dictionaries(st.text().filter(lambda name: name != "n"), _json, max_size=8)
_frames = st.lists(st.tuples(_messages, st.none() | st.binary(max_size=300)), max_size=5)


@settings(deadline=None, max_examples=50)
@given(frames=_frames, cuts=st.lists(st.integers(min_value=1, max_value=50), min_size=1))
def test_what_is_encoded_is_decoded_whatever_the_pieces(
    frames: list[tuple[dict[str, object], bytes | None]], cuts: list[int]
) -> None:
    stream = b"".join(encode_frame(message, body) for message, body in frames)
    decoder = FrameDecoder()
    decoded = []
    position = index = 0
    while position < len(stream):
        size = cuts[index % len(cuts)]
        decoded += decoder.feed(stream[position : position + size])
        position += size
        index += 1
    assert decoder.pending == 0
    assert [({k: v for k, v in message.items() if k != "n"}, body) for message, body in decoded] == frames


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_strange_bytes_are_refused_or_waited_for(data: bytes) -> None:
    decoder = FrameDecoder()
    try:
        frames = decoder.feed(data)
    except FrameError:
        return
    assert all(isinstance(message, dict) for message, _ in frames)


@pytest.mark.parametrize(
    "line",
    [
        b"[]\n",
        b"1\n",
        b"{\n",
        b'{"n":-1}\n',
        b'{"n":true}\n',
        b'{"n":1.5}\n',
        b'{"n":"7"}\n',
        b'{"n":%d}\n' % (MAX_BODY + 1),
        b"x" * MAX_LINE,
        b'{"a":"' + b"x" * MAX_LINE + b'"}\n',
        b"[" * 60000 + b"\n",
        b'{"a":"\xff"}\n',
    ],
)
def test_a_broken_sender_is_told_apart(line: bytes) -> None:
    with pytest.raises(FrameError):
        FrameDecoder().feed(line)


def test_the_longest_line_and_body_pass() -> None:
    message = {"a": "x" * (MAX_LINE - len(json.dumps({"a": ""}, separators=(",", ":"))) - 1)}
    frame = encode_frame(message)
    assert len(frame) == MAX_LINE
    assert FrameDecoder().feed(frame) == [(message, None)]
    ((_, body),) = FrameDecoder().feed(encode_frame({}, bytes(MAX_BODY)))
    assert body == bytes(MAX_BODY)
    with pytest.raises(FrameError):
        encode_frame({"a": message["a"] + "x"})
    with pytest.raises(FrameError):
        encode_frame({}, bytes(MAX_BODY + 1))


def test_file_names_that_are_not_utf8_survive() -> None:
    message = {"path": b"a\xff".decode("utf-8", "surrogateescape")}
    assert FrameDecoder().feed(encode_frame(message)) == [(message, None)]


def test_text_that_is_not_latin_keeps_its_size() -> None:
    assert len(encode_frame({"a": "я" * 1000})) < 2100


def test_the_message_is_not_changed() -> None:
    message: dict[str, object] = {"id": 1}
    encode_frame(message, b"abc")
    assert message == {"id": 1}

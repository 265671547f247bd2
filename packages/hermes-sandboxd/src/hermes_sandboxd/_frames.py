"""The frames of the sandbox protocol: one line of JSON, optionally followed by raw bytes.

Pure functions without any input or output, used by the daemon, by its supervisors and by clients.
"""

from __future__ import annotations

import json
import json.encoder
from typing import Any, Callable, Optional

MAX_LINE = 65536
"""Longest line of a frame in bytes, newline included."""

MAX_BODY = 262144
"""Most raw bytes that may follow one line."""

Message = dict[str, Any]
Frame = tuple[Message, Optional[bytes]]

# ensure_ascii=False keeps text that is not Latin at its UTF-8 size, which matters under the limit of a line.
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)
_encode_ascii = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), check_circular=False).encode
_decode = json.JSONDecoder().decode


def _make_encode() -> Callable[[Message], str]:
    # The encoder makes its machinery anew for each message; made once, a frame costs half as much.
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _encoder.encode
    iterate = make(None, _encoder.default, json.encoder.encode_basestring, None, ":", ",", False, False, True)
    return lambda message: "".join(iterate(message, 0))


_encode = _make_encode()


class FrameError(ValueError):
    """The bytes are not a frame of this protocol; the connection they came from must be closed."""


def encode_frame(message: Message, body: bytes | bytearray | memoryview | None = None) -> bytes:
    """Return `message` as one frame, with `body` as its raw bytes.

    Args:
        message: A JSON-RPC message. A member `"n"` is added when there is a body; `message` itself is not changed.
        body: Raw bytes to follow, at most `MAX_BODY`. None means a frame without `"n"`; empty bytes mean `"n": 0`.

    Raises:
        FrameError: The line or the body would be longer than the protocol allows.
    """
    if body is not None:
        if len(body) > MAX_BODY:
            raise FrameError(f"a frame carries at most {MAX_BODY} raw bytes, not {len(body)}")
        message = {**message, "n": len(body)}
    try:
        line = _encode(message).encode()
    except UnicodeEncodeError:
        # File names that are not UTF-8 reach Python as lone surrogates: escaped, they are still UTF-8 on the wire.
        line = _encode_ascii(message).encode()
    if len(line) >= MAX_LINE:
        raise FrameError(f"the line of a frame may have at most {MAX_LINE} bytes, not {len(line) + 1}")
    if body:
        return b"\n".join((line, body))
    return line + b"\n"


class FrameDecoder:
    """Turns a stream of bytes, in pieces of any size, into frames.

    After a `FrameError` the decoder is unusable: what follows in the stream has no meaning any more.
    """

    __slots__ = ("_buffer", "_message")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._message: Message | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Return the frames that `data` completes, as (message, body); body is None for a frame without `"n"`.

        Raises:
            FrameError: The sender is broken or hostile. Frames before the defect in the same `data` are lost with it.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        message = self._message
        position = 0
        size = len(buffer)
        while True:
            if message is None:
                newline = buffer.find(b"\n", position)
                if newline < 0 or newline - position >= MAX_LINE:
                    if size - position >= MAX_LINE:
                        raise FrameError(f"a line longer than {MAX_LINE} bytes")
                    break
                message = _parse(buffer[position:newline])
                position = newline + 1
            length = message.get("n")
            if length is None:
                frames.append((message, None))
            else:
                end = position + _checked(length)
                if end > size:
                    break
                frames.append((message, bytes(buffer[position:end])))
                position = end
            message = None
        self._message = message
        if position:
            # Cheap: a bytearray drops its front by moving an offset.
            del buffer[:position]
        return frames

    @property
    def pending(self) -> int:
        """How many bytes wait for the rest of their frame."""
        return len(self._buffer)


def _parse(line: bytes | bytearray) -> Message:
    try:
        message = _decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError("a frame must be a JSON object")
    return message


def _checked(length: object) -> int:
    if type(length) is not int or not 0 <= length <= MAX_BODY:
        raise FrameError(f'"n" must be an integer from 0 to {MAX_BODY}')
    return length

"""Strict JSON: the arguments of tool calls, as models write them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from hermes_core.execution import JsonValue

__all__ = ["decode_json_object", "decode_json_prefix"]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


# The lenient defaults of `json` (NaN, Infinity, 1e999) would end up in files that no other reader accepts.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_WHITESPACE = " \t\n\r"


def decode_json_prefix(text: str, start: int) -> tuple[dict[str, JsonValue], int]:
    """Decode the JSON object that begins at `start`, whitespace aside.

    Returns:
        The object, and where it ends in `text`.

    Raises:
        ValueError: No valid JSON object begins there; its text is one line for the model.
    """
    while start < len(text) and text[start] in _WHITESPACE:
        start += 1
    if not text.startswith("{", start):
        raise ValueError("a JSON object is expected")
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error.msg} at character {error.pos - start}") from None
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"invalid JSON: {str(error)[:100]}") from None
    if "\\u" in text[start:end] and not _encodable(value):
        raise ValueError("invalid JSON: half of a surrogate pair in a string")
    return value, end


def decode_json_object(text: str) -> dict[str, JsonValue]:
    """Decode a text that is one JSON object and nothing else.

    Raises:
        ValueError: It is not; the error's text is one line for the model.
    """
    value, end = decode_json_prefix(text, 0)
    if text[end:].strip(_WHITESPACE):
        raise ValueError("text follows the JSON object")
    return value


def _encodable(value: JsonValue) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True

"""Strict JSON: the arguments of tool calls, as models write them."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, NoReturn

from hermes_core.execution import ToolCall

if TYPE_CHECKING:
    from hermes_core.execution import JsonValue

__all__ = ["call_of_object", "decode_json_object", "decode_json_prefix", "decode_json_value", "skip_whitespace"]


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
_SPACE = re.compile(r"\s*")
_DEEPEST = 100  # far below where Python's recursion limit would meet whoever writes the value again


def skip_whitespace(text: str, start: int) -> int:
    """Where the whitespace that begins at `start` ends."""
    return _SPACE.match(text, start).end()  # type: ignore[union-attr]  # it matches the empty string


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
    value, end = decode_json_value(text, start)
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    return value, end


def decode_json_value(text: str, start: int) -> tuple[JsonValue, int]:
    """Decode the JSON value that begins exactly at `start`.

    Returns:
        The value, and where it ends in `text`.

    Raises:
        ValueError: No valid JSON value begins there; its text is one line for the model.
    """
    value: JsonValue
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON: {error.msg} at character {error.pos - start}") from None
    except RecursionError:
        raise ValueError("invalid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"invalid JSON: {str(error)[:100]}") from None
    if text.count("[", start, end) + text.count("{", start, end) > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError("invalid JSON: nested too deeply")
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


def call_of_object(value: JsonValue, key: str = "arguments") -> ToolCall:
    """Make a call of `{"name": …, "arguments": {…}}`; one that has an id keeps it.

    Args:
        value: As it was decoded.
        key: What the format calls the arguments.

    Raises:
        ValueError: It is none; the text is one line for the model.
    """
    if not isinstance(value, dict):
        raise ValueError("a JSON object is expected")
    name, arguments, call_id = value.get("name"), value.get(key, {}), value.get("id")
    if not isinstance(name, str) or not name:
        raise ValueError('"name" must be a string that names a tool')
    if not isinstance(arguments, dict):
        raise ValueError(f'"{key}" must be a JSON object')
    return ToolCall(name, arguments, call_id) if isinstance(call_id, str) and call_id else ToolCall(name, arguments)


def _depth(value: JsonValue) -> int:
    depth, layer = 0, [value]
    while layer:
        lists = [item for item in layer if isinstance(item, list)]
        objects = [item for item in layer if isinstance(item, dict)]
        layer = [inner for item in lists for inner in item] + [inner for item in objects for inner in item.values()]
        depth += bool(lists or objects)
    return depth


def _encodable(value: JsonValue) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True

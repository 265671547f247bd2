"""Calls in Python's syntax with literal arguments, read without Python: no names, no expressions, bounded depth."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING

from hermes_core.default_plugins.tool_call_formats._names import NAME, written_name
from hermes_core.execution import ToolCall
from hermes_core.models import skip_whitespace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue

__all__ = ["read_python_calls", "written_call"]

_DEEPEST = 100
_CALL = re.compile(rf"({NAME})\s*\(")
_KEYWORD = re.compile(r"([^\W\d]\w*)\s*=(?!=)")
_STRING = re.compile(
    r'"""(?P<a>[^"\\]*+(?:(?:\\.|""?(?!"))[^"\\]*+)*+)"""'
    r"|'''(?P<b>[^'\\]*+(?:(?:\\.|''?(?!'))[^'\\]*+)*+)'''"
    r'|"(?!"")(?P<c>[^"\\]*+(?:\\.[^"\\]*+)*+)"'
    r"|'(?!'')(?P<d>[^'\\]*+(?:\\.[^'\\]*+)*+)'",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_ITSELF = "\\'\"/"
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"(?:True|False|None|true|false|null)\b")
_WORDS: dict[str, JsonValue] = {
    "True": True, "true": True, "False": False, "false": False, "None": None, "null": None
}  # fmt: skip


def read_python_calls(text: str, start: int) -> tuple[list[ToolCall], int]:
    """Read `[f(a=1), g(b="x")]`; gives where it ends.

    Raises:
        ValueError: It is not there; the text is one line for the model.
    """
    if not text.startswith("[", start):
        raise ValueError("a list of calls is expected")
    calls: list[ToolCall] = []
    position = skip_whitespace(text, start + 1)
    while not calls or not text.startswith("]", position):
        call, position = _read_call(text, position)
        calls.append(call)
        position = _after_item(text, position, "]")
    return calls, position + 1


def written_call(call: ToolCall) -> str:
    """Write a call; arguments whose names are no identifiers stand in `**{…}`.

    Raises:
        ValueError: The tool's name is none, or a value is nested too deeply.
    """
    plain = [f"{key}={_written(value, 0)}" for key, value in call.arguments.items() if _is_identifier(key)]
    others = {key: value for key, value in call.arguments.items() if not _is_identifier(key)}
    if others:
        plain.append(f"**{_written(others, 0)}")
    return f"{written_name(call.name)}({', '.join(plain)})"


def _is_identifier(key: str) -> bool:
    matched = _KEYWORD.fullmatch(f"{key}=")
    return bool(matched) and matched is not None and matched.group(1) == key


def _written(value: JsonValue | Mapping[str, JsonValue], depth: int) -> str:
    if depth > _DEEPEST:
        raise ValueError("this tool-call format cannot write values that are nested so deeply")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("<|", "\\u003c|")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_written(item, depth + 1) for item in value)}]"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    items = (f"{_written(key, depth + 1)}: {_written(item, depth + 1)}" for key, item in value.items())
    return f"{{{', '.join(items)}}}"


def _read_call(text: str, start: int) -> tuple[ToolCall, int]:
    called = _CALL.match(text, start)
    if not called:
        raise ValueError("a call NAME(ARGUMENT=VALUE) is expected")
    arguments: dict[str, JsonValue] = {}
    position = skip_whitespace(text, called.end())
    while not text.startswith(")", position):
        given, position = _read_argument(text, position)
        twice = arguments.keys() & given.keys()
        if twice:
            raise ValueError(f"the argument {min(twice)[:100]!r} is given twice")
        arguments |= given
        position = _after_item(text, position, ")")
    return ToolCall(called.group(1), arguments), position + 1


def _read_argument(text: str, start: int) -> tuple[dict[str, JsonValue], int]:
    if text.startswith("**", start):
        given, position = _read_value(text, start + 2, 0)
        if not isinstance(given, dict):
            raise ValueError("** must be followed by a dictionary")
        return given, position
    keyword = _KEYWORD.match(text, start)
    if not keyword:
        raise ValueError("an argument NAME=VALUE is expected")
    value, position = _read_value(text, skip_whitespace(text, keyword.end()), 0)
    return {keyword.group(1): value}, position


def _after_item(text: str, start: int, closing: str) -> int:
    position = skip_whitespace(text, start)
    if text.startswith(",", position):
        return skip_whitespace(text, position + 1)
    if not text.startswith(closing, position):
        raise ValueError(f"a comma or {closing} is expected")
    return position


def _read_value(text: str, start: int, depth: int) -> tuple[JsonValue, int]:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    opening = text[start : start + 1]
    if opening == "[":
        return _read_list(text, start + 1, depth)
    if opening == "{":
        return _read_dictionary(text, start + 1, depth)
    if opening in ("'", '"') and opening:
        return _read_string(text, start)
    if number := _NUMBER.match(text, start):
        return _number(number), number.end()
    if word := _WORD.match(text, start):
        return _WORDS[word.group()], word.end()
    raise ValueError("a string, a number, True, False, None, a list or a dictionary is expected")


def _read_list(text: str, start: int, depth: int) -> tuple[list[JsonValue], int]:
    items: list[JsonValue] = []
    position = skip_whitespace(text, start)
    while not text.startswith("]", position):
        item, position = _read_value(text, position, depth + 1)
        items.append(item)
        position = _after_item(text, position, "]")
    return items, position + 1


def _read_dictionary(text: str, start: int, depth: int) -> tuple[dict[str, JsonValue], int]:
    items: dict[str, JsonValue] = {}
    position = skip_whitespace(text, start)
    while not text.startswith("}", position):
        key, position = _read_string(text, position)
        position = skip_whitespace(text, position)
        if not text.startswith(":", position):
            raise ValueError("a colon is expected after a key")
        items[key], position = _read_value(text, skip_whitespace(text, position + 1), depth + 1)
        position = _after_item(text, position, "}")
    return items, position + 1


def _read_string(text: str, start: int) -> tuple[str, int]:
    string = _STRING.match(text, start)
    if not string:
        raise ValueError("a string is expected, closed by the quote that opened it")
    inner = str(string.group(str(string.lastgroup)))
    return (_unescaped(inner) if "\\" in inner else inner), string.end()


def _unescaped(inner: str) -> str:
    decoded = _ESCAPE.sub(_escape, inner)
    try:  # two escapes may be a pair of surrogates, as JSON writes them
        return decoded.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeError:
        raise ValueError("half of a surrogate pair in a string") from None


def _escape(escape: re.Match[str]) -> str:
    digits = escape.group(1) or escape.group(2) or escape.group(3)
    if digits:
        if int(digits, 16) > 0x10FFFF:
            raise ValueError(f"{escape.group()} is no character")
        return chr(int(digits, 16))
    letter = escape.group(4)
    return _PLAIN.get(letter) if letter in _PLAIN else letter if letter in _ITSELF else escape.group()  # type: ignore[return-value]


def _number(number: re.Match[str]) -> JsonValue:
    if not number.group(1) and not number.group(2):
        return int(number.group())
    value = float(number.group())
    if not math.isfinite(value):
        raise ValueError(f"{number.group()[:100]} is out of range")
    return value

"""Grammars (GBNF) that hold a model to the tool calls of the `hermes` format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.execution import JsonValue, ToolDefinition

__all__ = ["CALL_END", "CALL_START", "calls_grammar"]

CALL_START, CALL_END = "<tool_call>", "</tool_call>"

_CALL_OVERHEAD = 64  # tokens of a call besides its strings: tags, names, keys
_STRING_RANGE = (32, 1500)  # characters; llama.cpp refuses much longer repetitions
_MOST_ITEMS = 8
_MOST_CALLS = 4
_DEEPEST = 4
_CHAR = r'[^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]'
_INTEGER = '"-"? ("0" | [1-9] [0-9]{0,14})'


def calls_grammar(tools: Sequence[ToolDefinition], *, max_tokens: int, single: bool) -> str:
    """Write the grammar of one call, or of a few one after the other.

    There is one way to lay a value out (no free white space), and strings, arrays and digits are bounded, so that a
    call ends within about `max_tokens` tokens whatever the model would like. Required arguments come first.

    Args:
        tools: What may be called; at least one.
        max_tokens: What bounds the strings: a character takes at most one token in ASCII text.
        single: Exactly one call.

    Returns:
        GBNF whose root is the calls, tags included.
    """
    rules = _Rules(max_tokens)
    calls = [rules.call(tool) for tool in tools]
    rules.define("call", f'"{CALL_START}\\n" ({" | ".join(calls)}) "\\n{CALL_END}"')
    rules.define("root", "call" if single else f'call ("\\n" call){{0,{_MOST_CALLS - 1}}}')
    return rules.text()


class _Rules:
    """Collects the rules of one grammar."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._longest = 0
        self._definitions: Mapping[str, JsonValue] = {}
        self._rules = {"char": _CHAR, "integer": _INTEGER, "number": f'{_INTEGER} ("." [0-9]{{1,9}})?'}

    def define(self, name: str, body: str) -> str:
        """Add a rule and give its name back."""
        self._rules[name] = body
        return name

    def text(self) -> str:
        return "".join(f"{name} ::= {body}\n" for name, body in self._rules.items())

    def call(self, tool: ToolDefinition) -> str:
        """The rule of a call of one tool."""
        low, high = _STRING_RANGE
        budget = (self._max_tokens - _CALL_OVERHEAD) // max(1, _count_strings(dict(tool.parameters)))
        self._longest = min(max(budget, low), high)
        definitions = tool.parameters.get("$defs")
        self._definitions = definitions if isinstance(definitions, dict) else {}
        arguments = self._object(tool.parameters, 0)
        head = f'{{"name": {json.dumps(tool.name)}, "arguments": '
        return self._new(f'{_literal(head)} {arguments} "}}"')

    def _new(self, body: str) -> str:
        return self.define(f"r{len(self._rules)}", body)

    def _value(self, schema: JsonValue, depth: int) -> str:
        if not isinstance(schema, dict) or depth > _DEEPEST:
            return self._anything(depth)
        if isinstance(reference := schema.get("$ref"), str):
            return self._value(self._definitions.get(reference.rpartition("/")[2]), depth + 1)
        if "const" in schema:
            return self._fixed([schema["const"]])
        if isinstance(choices := schema.get("enum"), list) and choices:
            return self._fixed(choices)
        for key in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(key), list) and options:
                return self._new(" | ".join(self._value(option, depth + 1) for option in options))
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            return self._new(" | ".join(self._of_type(str(one), schema, depth) for one in kind))
        return self._of_type(str(kind), schema, depth)

    def _of_type(self, kind: str, schema: Mapping[str, JsonValue], depth: int) -> str:
        match kind:
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return kind
            case "boolean":
                return self._fixed([True, False])
            case "null":
                return self._fixed([None])
            case "array":
                return self._array(schema, depth)
            case "object":
                return self._object(schema, depth)
            case _:
                return self._anything(depth)

    def _string(self, schema: Mapping[str, JsonValue]) -> str:
        longest = min(_whole(schema.get("maxLength"), self._longest), self._longest)
        shortest = min(_whole(schema.get("minLength"), 0), longest)
        return self._new(f'"\\"" char{{{shortest},{longest}}} "\\""')

    def _fixed(self, values: Sequence[JsonValue]) -> str:
        return self._new(" | ".join(_literal(json.dumps(value, ensure_ascii=False)) for value in values))

    def _array(self, schema: Mapping[str, JsonValue], depth: int) -> str:
        most = _whole(schema.get("maxItems"), _MOST_ITEMS)
        least = _whole(schema.get("minItems"), 0)
        most = max(min(most, _MOST_ITEMS), least)
        if most == 0:
            return self._new('"[]"')
        item = self._value(schema.get("items"), depth + 1)
        filled = f'{item} (", " {item}){{{max(least - 1, 0)},{most - 1}}}'
        return self._new(f'"[" {filled} "]"' if least else f'"[" ({filled})? "]"')

    def _object(self, schema: Mapping[str, JsonValue], depth: int) -> str:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            return self._open_object(depth) if schema.get("additionalProperties") else self._new('"{}"')
        listed = schema.get("required")
        required = listed if isinstance(listed, list) else []
        fields = {
            name: self._new(f"{_literal(json.dumps(name, ensure_ascii=False) + ': ')} {self._value(value, depth + 1)}")
            for name, value in properties.items()
        }
        needed = [rule for name, rule in fields.items() if name in required]
        free = [rule for name, rule in fields.items() if name not in required]
        tail = "".join(f' (", " {rule})?' for rule in free)
        if needed:
            return self._new(f'"{{" {_joined(needed)}{tail} "}}"')
        starts = [rule + "".join(f' (", " {later})?' for later in free[at + 1 :]) for at, rule in enumerate(free)]
        return self._new(f'"{{" ({" | ".join(starts)})? "}}"')

    def _open_object(self, depth: int) -> str:
        if depth >= _DEEPEST:
            return self._new('"{}"')
        field = f'{self._string({"maxLength": 64})} ": " {self._anything(depth + 1)}'
        return self._new(f'"{{" ({field} (", " {field}){{0,{_MOST_ITEMS - 1}}})? "}}"')

    def _anything(self, depth: int) -> str:
        plain = f"{self._string({})} | number | {self._fixed([True, False, None])}"
        if depth >= _DEEPEST - 1:
            return self._new(plain)
        item = self._new(plain)
        array = f'"[" ({item} (", " {item}){{0,{_MOST_ITEMS - 1}}})? "]"'
        return self._new(f"{item} | {array} | {self._open_object(_DEEPEST - 1)}")


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _joined(rules: Sequence[str]) -> str:
    return ' ", " '.join(rules)


def _whole(value: JsonValue, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else default


def _count_strings(schema: JsonValue) -> int:
    """How many strings a value of a schema may hold, about."""
    if isinstance(schema, list):
        return sum(map(_count_strings, schema))
    if not isinstance(schema, dict):
        return 0
    own = int(schema.get("type") == "string" and "enum" not in schema)
    return own + sum(_count_strings(value) for value in schema.values())

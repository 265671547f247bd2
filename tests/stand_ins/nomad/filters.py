"""The part of filter expressions that lists are asked with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from .documents import Doc, RequestError

__all__ = ["compiled"]

Test = Callable[[Doc], bool]
TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|==|!=|[A-Za-z_][\w-]*(?:\.[\w-]+|\["[^"]*"\])*|[\w.:/-]+)')
MISSING = object()


def tokens(text: str) -> list[str]:
    found, at = [], 0
    while at < len(text.rstrip()):
        token = TOKEN.match(text, at)
        if token is None:
            raise failure(text)
        found.append(token[1])
        at = token.end()
    return found


def failure(text: str) -> RequestError:
    return RequestError(400, f"failed to create result paginator: failed to read filter expression: {text}")


def literal(token: str) -> str:
    if token.startswith("`"):
        return token[1:-1]
    return str(json.loads(token)) if token.startswith('"') else token


def read(doc: Doc, selector: str) -> Any:
    """Follow `Meta.key` or `Meta["key"]`."""
    value: Any = doc
    for dotted, quoted in re.findall(r'([\w-]+)|\["([^"]*)"\]', selector):
        value = value.get(dotted or quoted, MISSING) if isinstance(value, dict) else MISSING
    return value


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Parser:
    """Reads `a == "b" and (c contains "d" or not e matches "f")`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokens(text)
        self.selectors: list[str] = []

    def _next(self) -> str:
        if not self._tokens:
            raise failure(self._text)
        return self._tokens.pop(0)

    def parse(self) -> Test:
        """Read everything."""
        test = self._either()
        if self._tokens:
            raise failure(self._text)
        return test

    def _either(self) -> Test:
        tests = [self._both()]
        while self._tokens[:1] == ["or"]:
            self._next()
            tests.append(self._both())
        return lambda doc: any(test(doc) for test in tests)

    def _both(self) -> Test:
        tests = [self._one()]
        while self._tokens[:1] == ["and"]:
            self._next()
            tests.append(self._one())
        return lambda doc: all(test(doc) for test in tests)

    def _one(self) -> Test:
        token = self._next()
        if token == "not":
            inner = self._one()
            return lambda doc: not inner(doc)
        if token == "(":
            inner = self._either()
            if self._next() != ")":
                raise failure(self._text)
            return inner
        if self._tokens[:1] == ["in"] or self._tokens[:2] == ["not", "in"]:
            negated = self._next() == "not" and self._next() == "in"
            selector = self._next()
            self.selectors.append(selector)
            return self._negated(negated, lambda doc: contains(read(doc, selector), literal(token)))
        return self._operator(token)

    @staticmethod
    def _negated(negated: bool, test: Test) -> Test:
        return (lambda doc: not test(doc)) if negated else test

    def _operator(self, selector: str) -> Test:
        operator = self._next()
        self.selectors.append(selector)
        negated = operator == "not" or operator == "!="
        if operator == "not":
            operator = self._next()
        if operator == "is":
            negated = self._tokens[:1] == ["not"]
            if negated:
                self._next()
            if self._next() != "empty":
                raise failure(self._text)
            return self._negated(negated, lambda doc: read(doc, selector) in (MISSING, None, "", {}, []))
        wanted = literal(self._next())
        if operator in ("==", "!="):
            return self._negated(negated, lambda doc: text_of(read(doc, selector)) == wanted)
        if operator == "contains":
            return self._negated(negated, lambda doc: contains(read(doc, selector), wanted))
        if operator == "matches":
            pattern = re.compile(wanted)
            return self._negated(negated, lambda doc: bool(pattern.search(text_of(read(doc, selector)))))
        raise failure(self._text)


def contains(value: Any, wanted: str) -> bool:
    """Tell whether a list, a table's keys or a text has something."""
    return wanted in value if isinstance(value, (list, dict, str)) else False


def compiled(text: str | None, fields: frozenset[str] | None = None) -> Test:
    """Compile a filter expression; none lets everything through.

    A selector that is not one of `fields` is refused.
    """
    if not text:
        return lambda doc: True
    parser = Parser(text)
    test = parser.parse()
    for selector in parser.selectors:
        first = re.match(r"[\w-]*", selector)
        name = first[0] if first else selector
        if fields is not None and name not in fields:
            path = selector.replace(".", "/")
            missing = f'couldn\'t find key: struct field with name "{name}"'
            why = f"error finding value in datum: /{path} at part 0: {missing}"
            raise RequestError(400, f"failed to read result page: {why}")
    return test

"""A streamed completion, put together again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hermes_core.default_plugins.models.openai._wire import UnusableAnswerError, decoded_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping

__all__ = ["assembled"]

_TEXTS = ("content", "reasoning_content", "reasoning")
_ABOUT = ("id", "model", "created", "system_fingerprint")


async def assembled(lines: AsyncIterable[str]) -> str:
    """Read the events of a streamed completion, and return the body that it would have had in one piece.

    Raises:
        UnusableAnswerError: It ends before its end, or an event is none.
    """
    answer = _Answer()
    fault: UnusableAnswerError | None = None
    # Read to its end whatever comes: left half way, the HTTP library's generators are closed by nobody.
    async for line in lines:
        field, _, value = line.partition(":")
        if field != "data" or answer.ended or fault:
            continue  # comments that keep the connection alive, names of events
        if value.strip() == "[DONE]":
            answer.ended = True
            continue
        try:
            answer.add(decoded_body(value))
        except UnusableAnswerError as error:
            fault = error
    if fault:
        raise fault
    return answer.body()


class _Answer:
    def __init__(self) -> None:
        self.ended = False
        self._about: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: list[dict[str, Any]] = []
        self._places: dict[object, int] = {}
        self._finish_reason: str | None = None
        self._begun = False

    def add(self, event: Mapping[str, Any]) -> None:
        if event.get("error"):
            raise UnusableAnswerError(f"an error: {json.dumps(event)}", status=500)
        for name in _ABOUT:
            if event.get(name) is not None:
                self._about.setdefault(name, event[name])
        if event.get("usage"):
            self._about["usage"] = event["usage"]
        for choice in event.get("choices") or ():
            if isinstance(choice, dict) and not choice.get("index"):
                self._add_choice(choice)

    def body(self) -> str:
        """All of it.

        Raises:
            UnusableAnswerError: It is not all.
        """
        if not (self.ended or self._finish_reason):
            raise UnusableAnswerError("the stream ended before the answer did")
        if not self._begun:
            raise UnusableAnswerError("nothing was streamed")
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        message |= {name: "".join(parts) for name, parts in self._texts.items()}
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {"index": 0, "message": message, "finish_reason": self._finish_reason}
        return json.dumps({**self._about, "choices": [choice]})

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        self._begun = True
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for name in _TEXTS:
            if isinstance(delta.get(name), str):
                self._texts.setdefault(name, []).append(delta[name])
        calls = delta.get("tool_calls")
        for part in calls if isinstance(calls, list) else ():
            if isinstance(part, dict):
                self._add_call(part)

    def _add_call(self, part: Mapping[str, Any]) -> None:
        given = part.get("function")
        function: Mapping[str, Any] = given if isinstance(given, dict) else {}
        # Servers that do not number calls name each new one, and some give them all the number 0.
        place = self._places.get(part.get("index"))
        known = None if place is None else self._calls[place]
        opens = function.get("name") and part.get("id") and known is not None and known["id"] != part["id"]
        if known is None or opens:
            known = {"id": part.get("id"), "type": "function", "function": {"name": None, "arguments": ""}}
            self._places[part.get("index")] = len(self._calls)
            self._calls.append(known)
        known["id"] = known["id"] or part.get("id")
        called = known["function"]
        called["name"] = called["name"] or function.get("name")
        arguments = function.get("arguments")
        if arguments is not None:
            called["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)

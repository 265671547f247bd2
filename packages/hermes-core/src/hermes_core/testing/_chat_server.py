"""A stand-in for an OpenAI-compatible chat endpoint: a real HTTP server that says what it is told to."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

__all__ = ["ChatAnswer", "FakeChatServer", "completion", "streamed"]


def completion(
    content: str | None = "",
    *,
    tool_calls: Iterable[Mapping[str, Any]] = (),
    finish_reason: str = "stop",
    more: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """The body of a chat completion.

    Args:
        content: What the model says.
        tool_calls: Functions that it calls, each with `name` and `arguments`.
        finish_reason: Why it ended.
        more: Further fields of the message.
    """
    calls = [
        {"id": f"call_{number}", "type": "function", "function": dict(call)} for number, call in enumerate(tool_calls)
    ]
    said: dict[str, Any] = {"role": "assistant", "content": content, **(more or {})}
    if calls:
        said["tool_calls"] = calls
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fake-model",
        "system_fingerprint": "fp_1",
        "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer.

    Attributes:
        body: A JSON object, or the text that is sent as it is.
        status: The HTTP status.
        headers: Further headers.
        drop: Close the connection instead of answering; after half of the body, if there is one.
        hang: Do not answer before the server is closed.
    """

    body: Mapping[str, Any] | str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    hang: bool = False


def streamed(body: Mapping[str, Any], *, ends: bool = True, drop: bool = False) -> ChatAnswer:
    """A completion as server-sent events, a few characters in each.

    Args:
        body: What `completion` returned.
        ends: Say how it ended; without that it just stops.
        drop: Close the connection half way.
    """
    (choice,) = body["choices"]
    said = dict(choice["message"])
    calls = said.pop("tool_calls", ())
    deltas: list[dict[str, Any]] = [{"role": said.pop("role"), "content": None}]
    for name, text in said.items():
        deltas += [{name: text[at : at + 3]} for at in range(0, len(text or ""), 3)]
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        opening = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        parts = [arguments[at : at + 3] for at in range(0, len(arguments), 3)]
        pieces = [{"index": index, "function": {"arguments": part}} for part in parts]
        deltas += [{"tool_calls": [piece]} for piece in (opening, *pieces)]
    about = {name: value for name, value in body.items() if name not in ("choices", "usage")}
    events = [{**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    lines = [": keep-alive", *(f"data: {json.dumps(event)}" for event in events)]
    if ends:
        ending = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
        lines += [f"data: {json.dumps({**about, 'choices': [ending]})}"]
        lines += [f"data: {json.dumps({**about, 'choices': [], 'usage': body['usage']})}", "data: [DONE]"]
    text = "".join(f"{line}\n\n" for line in lines)
    return ChatAnswer(text, headers={"Content-Type": "text/event-stream"}, drop=drop)


class FakeChatServer:
    """Serves `GET /v1/models` and `POST /v1/chat/completions` on the loopback interface; a context manager.

    Args:
        answers: Given in order to completions, the last one repeated; or a function that makes one from a request's
            body, called by one thread at a time.
        models: What `/v1/models` lists.
        key: Answer 401 without this bearer token.
    """

    def __init__(
        self,
        answers: Iterable[ChatAnswer | Mapping[str, Any]]
        | Callable[[dict[str, Any]], ChatAnswer | Mapping[str, Any]] = (),
        *,
        models: Iterable[str] = ("fake-model",),
        key: str | None = None,
    ) -> None:
        self._make = answers if callable(answers) else None
        self._answers = deque(() if callable(answers) else answers)
        self._models = tuple(models)
        self._key = key
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.requests: list[dict[str, Any]] = []
        """Bodies of the completions that were asked for."""
        self.asked = threading.Event()
        """Set when the first of them comes in."""
        self.busiest = 0
        """Most completions that were being answered at once."""
        self._busy = 0
        handler = type("Handler", (_Handler,), {"chat": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """Where it is, without `/v1`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, and let go of what hangs."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: dict[str, Any]) -> ChatAnswer:
        with self._lock:
            self.requests.append(request)
            self.asked.set()
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            if self._make is not None:
                answer = self._make(request)
            else:
                answer = self._answers[0] if len(self._answers) == 1 else self._answers.popleft()
            return answer if isinstance(answer, ChatAnswer) else ChatAnswer(answer)

    def _answered(self) -> None:
        with self._lock:
            self._busy -= 1


class _Handler(BaseHTTPRequestHandler):
    """Serves one connection of the server that a subclass names."""

    chat: FakeChatServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List the models."""
        listing = {"object": "list", "data": [{"id": name, "object": "model"} for name in self.chat._models]}
        self._answer(ChatAnswer(listing) if self._may() else unauthorized())

    def do_POST(self) -> None:
        """Complete a chat."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._may():
            self._answer(unauthorized())
            return
        answer = self.chat._take(request)
        try:
            if answer.hang:
                self.chat._closing.wait()
            self._answer(answer)
        finally:
            self.chat._answered()

    def _may(self) -> bool:
        return self.chat._key is None or self.headers["Authorization"] == f"Bearer {self.chat._key}"

    def _answer(self, answer: ChatAnswer) -> None:
        text = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        body = text.encode()
        if answer.drop or answer.hang:
            self.close_connection = True
            if not body:
                return
        try:
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer.drop else body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def unauthorized() -> ChatAnswer:
    """What a request without the key is answered with."""
    return ChatAnswer({"error": {"message": "wrong key", "type": "invalid_request_error"}}, status=401)

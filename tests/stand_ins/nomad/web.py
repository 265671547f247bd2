"""What all routes share: parameters, headers, tokens, errors, and waiting for a newer index."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response

from .documents import Doc, RequestError
from .filters import compiled
from .variables import Conflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from .agent import Agent

__all__ = ["Asked", "Gate", "answer", "check_id", "guarded", "listed", "shown"]

OPEN = ("/v1/status/", "/v1/agent/health", "/stand-in/")
"""What needs no token."""


def shown(doc: Doc) -> Doc:
    """Leave out what is empty, as the agent does for allocations and evaluations."""
    found = {key: value for key, value in doc.items() if value not in (None, "", [], {}) and value is not False}
    if not any((doc.get("DesiredTransition") or {}).values()):
        found.pop("DesiredTransition", None)
    return found


class Asked:
    """One request."""

    def __init__(self, agent: Agent, request: Request) -> None:
        self.agent = agent
        self.request = request
        self.query = request.query_params

    @property
    def namespace(self) -> str:
        """The namespace that is asked for, by default `default`."""
        return str(self.query.get("namespace") or "default")

    def flag(self, name: str) -> bool:
        """Read a parameter that is true or not."""
        return self.query.get(name, "").lower() in ("1", "true", "t")

    def number(self, name: str) -> int | None:
        """Read a parameter that is a number."""
        text = self.query.get(name)
        if not text:
            return None
        if not text.isdigit():
            raise RequestError(400, f"failed to parse {name}: {text!r}")
        return int(text)

    async def body(self) -> Doc:
        """Read the JSON document of the request."""
        try:
            found = json.loads(await self.request.body() or "{}")
        except ValueError as error:
            raise RequestError(400, str(error)) from error
        if not isinstance(found, dict):
            raise RequestError(400, "a document is expected")
        return found

    def check_region(self) -> None:
        """Refuse another region."""
        if self.query.get("region", self.agent.options.region) != self.agent.options.region:
            raise RequestError(500, "No path to region")

    def check_token(self) -> None:
        """Refuse a request without the token that is needed."""
        wanted = self.agent.options.acl_token
        if wanted is None or self.request.url.path.startswith(OPEN):
            return
        headers = self.request.headers
        given = headers.get("x-nomad-token") or headers.get("authorization", "").removeprefix("Bearer ")
        if given != wanted:
            raise RequestError(403, "ACL token not found" if given else "Permission denied")

    async def wait(self, table: str) -> None:
        """Wait, if the request has an index, until the table is newer."""
        index = self.number("index")
        if index is not None and index > 0:
            found = re.fullmatch(r"(\d+)(ms|s|m)?", self.query.get("wait") or "300s")
            if found is None:
                raise RequestError(400, "Invalid wait time")
            seconds = int(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1e-9}[found[2]]
            await self.agent.state.wait(table, index, min(seconds, 600.0))


def answer(asked: Asked, value: Any, table: str | None = None, status: int = 200) -> Response:
    """Write a document with the index of what it is from."""
    state = asked.agent.state
    index = state.index if table is None else max(1, state.table_index[table])
    headers = {"X-Nomad-Index": str(index), "X-Nomad-KnownLeader": "true", "X-Nomad-LastContact": "0"}
    return Response(json.dumps(value), status, headers, "application/json")


def guarded(agent: Agent, handler: Callable[[Asked], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Check the token, and turn errors into answers."""

    async def endpoint(request: Request) -> Response:
        asked = Asked(agent, request)
        try:
            asked.check_region()
            asked.check_token()
            return await handler(asked)
        except RequestError as error:
            return PlainTextResponse(error.text, error.status)
        except Conflict as conflict:
            return answer(asked, conflict.current, status=409)

    return endpoint


def check_id(text: str, before: str, *, prefix: bool = False) -> None:
    """Refuse what cannot be an ID, in the agent's words."""
    plain = text.replace("-", "")
    if not prefix and len(text) != 36:
        raise RequestError(500, f"{before}: index error: UUID must be 36 characters")
    if re.search(r"[^0-9a-fA-F]", plain):
        raise RequestError(500, f"{before}: index error: Invalid UUID: encoding/hex: invalid byte")
    if len(plain) % 2:
        raise RequestError(500, f"{before}: index error: Input (without hyphens) must be even length")


def listed(
    asked: Asked, documents: Iterable[Doc], *, key: str = "ID", fields: frozenset[str] | None = None
) -> list[Doc]:
    """Apply namespace, `prefix`, `filter` and `reverse`; sorted by key or, if asked for, by age."""
    namespace, prefix = asked.namespace, asked.query.get("prefix", "")
    wanted = compiled(asked.query.get("filter"), fields)
    found = [
        doc
        for doc in documents
        if namespace in ("*", doc.get("Namespace", namespace)) and doc[key].startswith(prefix) and wanted(doc)
    ]
    found.sort(key=lambda doc: str(doc[key]))
    if asked.flag("reverse"):
        found.reverse()
    return found[: asked.number("per_page") or None]


class Gate:
    """Fails or delays requests as a test has asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.failures: list[tuple[int, str]] = []
        self.delay = 0.0
        self._until = (0.0, (500, ""))

    def fail_for(self, seconds: float, answer: tuple[int, str]) -> None:
        """Fail every request for some seconds, as while there is no leader."""
        self._until = (time.monotonic() + seconds, answer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or not."""
        if scope["type"] == "http" and not scope["path"].startswith("/stand-in/"):
            if self.delay:
                await asyncio.sleep(self.delay)
            until, failing = self._until
            if self.failures or time.monotonic() < until:
                status, text = self.failures.pop(0) if self.failures else failing
                await PlainTextResponse(text, status)(scope, receive, send)
                return
        await self._app(scope, receive, send)

"""Numbers and names that both ends of the sandbox protocol share (docs/reference/protocol.md)."""

from __future__ import annotations

from typing import Any

VERSION = "0.1.0"
PROTOCOL_VERSION = 1

INLINE_BYTES = 65536
"""Bodies up to this size travel inside their request or answer."""

CHUNK_BYTES = 65536
"""Largest chunk of a body that travels in pieces; larger ones would delay the frames of others."""

WINDOW_BYTES = 1 << 20
"""What may be on its way without credit, per request and direction."""

DEFAULT_OUTPUT_CAP = 1 << 20
DEADLINE_GRACE_S = 2.0
"""How long after a deadline the daemon waits for the supervisor before it kills the slot from outside."""

_CODES = {"bad_method": -32601, "bad_request": -32602, "internal": -32603}


class Refusal(Exception):
    """A request that is answered with an error.

    Args:
        kind: One of the kinds in docs/reference/protocol.md.
        message: One line for a person.
        data: Further members of `error.data`.
    """

    def __init__(self, kind: str, message: str, **data: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.data = data

    def error(self) -> dict[str, Any]:
        """Return the JSON-RPC error object."""
        kind = "bad_request" if self.kind == "bad_method" else self.kind
        return {
            "code": _CODES.get(self.kind, -32000),
            "message": " ".join(self.message.split())[:2000],
            "data": {"kind": kind, **self.data},
        }


def answer(request_id: int | None, result: dict[str, Any]) -> dict[str, Any]:
    """Return the message that answers a request."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def refusal(request_id: int | None, error: Refusal) -> dict[str, Any]:
    """Return the message that refuses a request."""
    return {"jsonrpc": "2.0", "id": request_id, "error": error.error()}


def notification(method: str, **params: object) -> dict[str, Any]:
    """Return a message that has no answer."""
    return {"jsonrpc": "2.0", "method": method, "params": params}

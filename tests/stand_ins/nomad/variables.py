"""Variables: small secrets with an index, written only if nobody else has in the meantime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .documents import Doc, RequestError
from .state import key_of

if TYPE_CHECKING:
    from .state import State

__all__ = ["Conflict", "delete", "list_metadata", "read", "write"]


class Conflict(Exception):
    """Somebody else has written the variable; `current` is what it is now."""

    def __init__(self, current: Doc) -> None:
        super().__init__(current["Path"])
        self.current = current


def read(state: State, namespace: str, path: str) -> Doc:
    """Return a variable."""
    found = state.tables["variables"].get(key_of(namespace, path))
    if found is None:
        raise RequestError(404, "variable not found")
    return found


def compare(state: State, namespace: str, path: str, cas: int | None) -> Doc | None:
    """Return the variable that is to be changed, if nobody else has changed it."""
    current = state.tables["variables"].get(key_of(namespace, path))
    if cas is not None and cas != (current["ModifyIndex"] if current else 0):
        zero = {"CreateIndex": 0, "CreateTime": 0, "ModifyIndex": 0, "ModifyTime": 0}
        raise Conflict(current or {"Namespace": namespace, "Path": path, **zero})
    return current


def write(state: State, namespace: str, path: str, items: dict[str, str], cas: int | None) -> Doc:
    """Create or replace a variable."""
    if not items:
        raise RequestError(400, "variable missing required Items object")
    if sum(len(key) + len(value) for key, value in items.items()) > 65536:
        raise RequestError(500, "variables are limited to 64KiB in total size")
    current = compare(state, namespace, path, cas)
    kept = {key: current[key] for key in ("CreateIndex", "CreateTime")} if current else {}
    written: Doc = {"Namespace": namespace, "Path": path, **kept, "Items": items}
    with state.change("VariableUpdated") as transaction:
        transaction.put("variables", written)
    return written


def delete(state: State, namespace: str, path: str, cas: int | None) -> None:
    """Delete a variable, if there is one."""
    current = compare(state, namespace, path, cas)
    if current is not None:
        with state.change("VariableUpdated") as transaction:
            transaction.drop("variables", key_of(namespace, path), current)


def list_metadata(state: State, namespace: str, prefix: str) -> list[Doc]:
    """List variables without what they hold."""
    found = sorted(state.tables["variables"].values(), key=lambda one: (one["Namespace"], one["Path"]))
    return [
        {key: value for key, value in one.items() if key != "Items"}
        for one in found
        if namespace in ("*", one["Namespace"]) and one["Path"].startswith(prefix)
    ]

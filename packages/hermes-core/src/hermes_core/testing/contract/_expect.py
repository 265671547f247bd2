"""Errors that checks expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["expect"]

E = TypeVar("E", bound=Exception)


async def expect(error: type[E], request: Awaitable[object], what: str) -> E:
    """Await something that should fail; return its error.

    Args:
        error: The error that it should fail with.
        request: What to await.
        what: What it would mean if it did not.
    """
    try:
        result = await request
    except error as raised:
        return raised
    raise AssertionError(f"{what}: {error.__name__} was expected, and {result!r} was returned")

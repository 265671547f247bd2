"""Addresses of endpoints, as users write them: one, or several in a list or separated by commas."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator

__all__ = ["Addresses", "separated"]


def separated(urls: str | tuple[str, ...]) -> tuple[str, ...]:
    """Each address on its own, in order, none twice."""
    listed = urls.split(",") if isinstance(urls, str) else urls
    return tuple(dict.fromkeys(url.strip() for url in listed))


def _apart(given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    if given is None:
        return None
    urls = separated(given)
    if not (urls and all(urls)):
        raise ValueError("an address is empty")
    return urls if len(urls) > 1 else urls[0]


Addresses: TypeAlias = Annotated[str | tuple[str, ...] | None, AfterValidator(_apart)]
"""A field of a model's configuration."""

"""A toolset: a named, composable selection of tools."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Toolset"]


@dataclass(frozen=True, slots=True)
class Toolset:
    """A named selection of tools.

    Attributes:
        name: What users write in `--toolsets`.
        summary: One line for listings.
        tools: Names of tools.
        includes: Names of toolsets whose tools it has as well.
    """

    name: str
    summary: str = ""
    tools: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()

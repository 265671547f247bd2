"""From the names of toolsets to the names of tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from hermes_core.toolsets._toolset import Toolset

__all__ = ["EVERYTHING", "select_tools"]

EVERYTHING = frozenset(("full", "all", "*"))
"""Names that stand for every registered tool."""


def select_tools(
    enabled: Iterable[str],
    disabled: Iterable[str],
    find: Callable[[str], Toolset],
    every_tool: Collection[str],
) -> tuple[str, ...]:
    """Expand toolsets to tools: those of the enabled ones, minus those of the disabled ones.

    Args:
        enabled: Names of toolsets.
        disabled: Names of toolsets whose tools are taken away.
        find: Looks a toolset up by name; raises `UnknownNameError`.
        every_tool: The names of all tools, for `full`, `all` and `*`.

    Returns:
        Tool names without repetition, in the order of the toolsets.

    Raises:
        ConfigError: Toolsets include each other in a circle.
        UnknownNameError: A toolset is not registered.
    """
    taken_away = set(_expand(disabled, find, every_tool))
    return tuple(name for name in _expand(enabled, find, every_tool) if name not in taken_away)


def _expand(names: Iterable[str], find: Callable[[str], Toolset], every_tool: Collection[str]) -> list[str]:
    tools: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ConfigError(f"toolsets include each other in a circle: {' -> '.join((*path, name))}")
        if name in EVERYTHING:
            tools.update(dict.fromkeys(every_tool))
            return
        toolset = find(name)
        tools.update(dict.fromkeys(toolset.tools))
        for included in toolset.includes:
            visit(included, (*path, name))

    for name in names:
        visit(name, ())
    return list(tools)

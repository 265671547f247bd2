from __future__ import annotations

import pytest

from hermes_core.exceptions import ConfigError, UnknownNameError
from hermes_core.toolsets import Toolset, select_tools

TOOLSETS = {
    "a": Toolset("a", tools=("x", "y")),
    "b": Toolset("b", tools=("y", "z"), includes=("a",)),
    "loop": Toolset("loop", includes=("pool",)),
    "pool": Toolset("pool", includes=("loop",)),
}
EVERY_TOOL = ("x", "y", "z", "w")


def find(name: str) -> Toolset:
    if name not in TOOLSETS:
        raise UnknownNameError("toolset", name, TOOLSETS)
    return TOOLSETS[name]


@pytest.mark.parametrize(
    ("enabled", "disabled", "expected"),
    [
        (["a"], [], ("x", "y")),
        (["b"], [], ("y", "z", "x")),
        (["a", "b"], [], ("x", "y", "z")),
        (["b"], ["a"], ("z",)),
        (["full"], ["a"], ("z", "w")),
        (["*"], [], EVERY_TOOL),
        (["all"], ["full"], ()),
        ([], [], ()),
    ],
)
def test_enabled_minus_disabled(enabled: list[str], disabled: list[str], expected: tuple[str, ...]) -> None:
    assert select_tools(enabled, disabled, find, EVERY_TOOL) == expected


def test_a_circle_is_an_error_that_shows_it() -> None:
    with pytest.raises(ConfigError, match="loop -> pool -> loop"):
        select_tools(["loop"], [], find, EVERY_TOOL)


def test_an_unknown_toolset_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match="unknown toolset 'c'"):
        select_tools(["c"], [], find, EVERY_TOOL)

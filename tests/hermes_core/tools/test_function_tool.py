from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from hermes_core.exceptions import ToolError
from hermes_core.execution import Slot, Tool, ToolContext
from hermes_core.tools import FunctionTool, tool

pytestmark = pytest.mark.anyio

CONTEXT = ToolContext(trajectory_id="t", task_id="k", call_id="c", timeout_s=5.0)


@tool
async def greet(name: str, times: int = 1, how: Literal["hi", "bye"] = "hi") -> str:
    """Greet somebody.

    Politely.

    Args:
        name: Who to greet; this explanation
            takes two lines.
        times: How often.
        how: The word.

    Returns:
        The greeting.
    """
    return " ".join([f"{how} {name}"] * times)


@tool(name="add", timeout_s=1.5)
def add_in_a_thread(a: int, b: Annotated[int, Field(ge=0)]) -> int:
    """Add."""
    return a + b


def test_the_schema_comes_from_annotations_and_docstring() -> None:
    definition = greet.definition
    assert isinstance(greet, Tool)
    assert (definition.name, definition.description) == ("greet", "Greet somebody. Politely.")
    assert definition.parameters == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Who to greet; this explanation takes two lines."},
            "times": {"type": "integer", "default": 1, "description": "How often."},
            "how": {"type": "string", "enum": ["hi", "bye"], "default": "hi", "description": "The word."},
        },
        "required": ["name"],
        "additionalProperties": False,
    }


def test_a_property_called_title_survives() -> None:
    @tool
    def name_it(title: str) -> str:
        """Name it."""
        return title

    assert "title" in name_it.definition.parameters["properties"]  # type: ignore[operator]


async def test_it_runs_with_validated_arguments() -> None:
    assert await greet.run({"name": "you", "times": "2"}, CONTEXT, None) == "hi you hi you"
    assert await add_in_a_thread.run({"a": 1, "b": 2}, CONTEXT, None) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "name: Field required"),
        ({"name": "x", "nam": 1}, "nam: Extra inputs"),
        ({"name": [1]}, "name: Input should"),
    ],
)
async def test_bad_arguments_are_told_in_one_line(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ToolError, match=said) as caught:
        await greet.run(arguments, CONTEXT, None)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


async def test_the_context_is_injected_and_hidden() -> None:
    @tool
    async def who(context: ToolContext) -> str:
        """Who calls."""
        return str(context.trajectory_id)

    assert who.definition.parameters["properties"] == {}
    assert await who.run({}, CONTEXT, None) == "t"


async def test_a_slot_makes_it_a_sandbox_tool() -> None:
    @tool
    async def count(path: str, slot: Slot) -> int:
        """Count."""
        return len(await slot.read_file(path))

    assert count.needs_slot
    assert not greet.needs_slot
    assert count.definition.parameters["required"] == ["path"]
    with pytest.raises(ToolError, match="has none"):
        await count.run({"path": "x"}, CONTEXT, None)


async def test_ignored_arguments_are_dropped() -> None:
    lenient = FunctionTool(lambda: "ok", name="lenient", ignores=("network",))
    assert await lenient.run({"network": True}, CONTEXT, None) == "ok"


def test_it_says_why_it_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICE_KEY", raising=False)
    keyed = FunctionTool(lambda: 1, name="keyed", requires_env=("DICE_KEY",))
    assert keyed.unavailable() == "set DICE_KEY in the environment"
    monkeypatch.setenv("DICE_KEY", "x")
    assert keyed.unavailable() is None
    assert FunctionTool(lambda: 1, name="no", available=lambda: False).unavailable() == "not available on this machine"
    assert FunctionTool(lambda: 1, name="no", available=lambda: "no dice here").unavailable() == "no dice here"


def test_an_unannotated_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a type annotation"):
        tool(lambda x: x)

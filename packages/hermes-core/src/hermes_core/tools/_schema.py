"""From a typed, documented function to the schema of a tool."""

from __future__ import annotations

import inspect
import re
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_core.execution import Slot, ToolContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from hermes_core.execution import JsonValue

__all__ = ["Signature", "read_signature"]

_ARGUMENT = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function's signature and docstring say.

    Attributes:
        description: The docstring up to its first section.
        arguments: Pydantic model that validates a call's arguments.
        slot: Name of the parameter annotated `Slot`, or None.
        context: Name of the parameter annotated `ToolContext`, or None.
    """

    description: str
    arguments: type[BaseModel]
    slot: str | None
    context: str | None

    def schema(self) -> dict[str, JsonValue]:
        """JSON schema of the arguments, without the titles that only repeat the names."""
        schema: dict[str, Any] = self.arguments.model_json_schema()
        return typing.cast("dict[str, JsonValue]", _untitled(schema))


def read_signature(function: Callable[..., object]) -> Signature:
    """Read a function.

    Raises:
        TypeError: A parameter has no annotation, or is variadic.
    """
    from pydantic import ConfigDict, Field, create_model

    description, documented = _read_docstring(inspect.getdoc(function) or "")
    hints = _parameter_types(function)
    fields: dict[str, Any] = {}
    injected: dict[type, str] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hints:
            raise TypeError(f"parameter {name!r} of tool {function.__name__!r} needs a type annotation")
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"tool {function.__name__!r} cannot take *{name}: every argument needs a name")
        if hints[name] in (Slot, ToolContext):
            injected[hints[name]] = name
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints[name], Field(default, description=documented.get(name)))
    model = create_model(
        function.__name__, __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=False), **fields
    )
    return Signature(description, model, injected.get(Slot), injected.get(ToolContext))


def _parameter_types(function: Callable[..., object]) -> dict[str, Any]:
    """Evaluate the parameters' annotations; what a function returns is its own business."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    return typing.get_type_hints(
        types.SimpleNamespace(__annotations__=annotations),
        globalns=getattr(inspect.unwrap(function), "__globals__", {}),
        # The injected types may be imported for type checking only.
        localns={"Slot": Slot, "ToolContext": ToolContext},
        include_extras=True,
    )


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into its description and what it says of each argument."""
    description, _, rest = text.partition("\nArgs:\n")
    documented: dict[str, str] = {}
    current = ""
    for line in rest.splitlines():
        if line and not line.startswith(" "):
            break
        indent = len(line) - len(line.lstrip())
        match = _ARGUMENT.match(line.strip()) if indent <= 4 else None
        if match:
            current = match[1]
            documented[current] = match[2]
        elif line.strip() and current:
            documented[current] += " " + line.strip()
    description = re.split(r"\n(?:Returns|Raises|Yields):\n", description)[0]
    return " ".join(description.split()), documented


def _untitled(node: object, *, names: bool = False) -> object:
    """Drop generated titles; in a mapping of properties the keys are names, and one of them may be "title"."""
    if isinstance(node, dict):
        return {
            key: _untitled(value, names=key in ("properties", "$defs") and not names)
            for key, value in node.items()
            if names or key != "title"
        }
    if isinstance(node, list):
        return [_untitled(value) for value in node]
    return node

"""The `hermes` format with a short prompt, for small models and small contexts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hermes_core.models import HermesFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.execution import JsonValue, ToolDefinition

__all__ = ["ShortHermesFormat"]


class ShortHermesFormat(HermesFormat):
    """Calls and results as in `hermes`; tools are told in one line each.

    The format's own prompt has some 700 tokens, which a small model on a processor reads for seconds.
    """

    def system_prompt(self, tools: Sequence[ToolDefinition]) -> str:
        """One line for each tool, and the form of a call."""
        lines = "\n".join(_line(tool) for tool in tools)
        example = json.dumps({"name": tools[0].name, "arguments": {}}) if tools else ""
        return (
            "You solve tasks with tools. A call is\n"
            f"<tool_call>\n{example}\n</tool_call>\n"
            "with the arguments filled in; its result comes back as <tool_response>. "
            "A turn without a call is your final answer. The tools:\n"
            f"{lines}"
        )


def _line(tool: ToolDefinition) -> str:
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    needed = required if isinstance(required, list) else []
    named = properties.items() if isinstance(properties, dict) else ()
    arguments = ", ".join(f"{name}{'' if name in needed else '?'}: {_kind(schema)}" for name, schema in named)
    return f"{tool.name}({arguments}): {tool.description.strip().partition(chr(10))[0]}"


def _kind(schema: JsonValue) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    return kind if isinstance(kind, str) else "any"

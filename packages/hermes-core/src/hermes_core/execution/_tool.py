"""The contract of a tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution._call import JsonValue, ToolDefinition
    from hermes_core.execution._slot import Slot

__all__ = ["Tool", "ToolContext", "advertised"]


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know about the call that it serves.

    Attributes:
        trajectory_id: The trajectory that called, or None outside one.
        task_id: Its task, or None.
        call_id: The call's own id.
        timeout_s: Seconds that the call may take, from now.
    """

    trajectory_id: str | None
    task_id: str | None
    call_id: str
    timeout_s: float


@runtime_checkable
class Tool(Protocol):
    """A callable with a JSON schema.

    A **sandbox tool** (`needs_slot`) acts inside the trajectory's slot; an **external tool** runs on the host and
    gets no slot.
    """

    @property
    def definition(self) -> ToolDefinition:
        """Name, description and argument schema."""

    @property
    def needs_slot(self) -> bool:
        """Whether it is a sandbox tool."""

    @property
    def timeout_s(self) -> float:
        """Seconds that one call may take by default."""

    def unavailable(self) -> str | None:
        """Why the tool cannot be used on this machine now (a missing key, …), or None if it can."""

    async def run(self, arguments: Mapping[str, JsonValue], context: ToolContext, slot: Slot | None) -> JsonValue:
        """Serve one call.

        Args:
            arguments: As the model gave them; the tool validates them.
            context: What is known of the call.
            slot: The trajectory's slot; None exactly for external tools.

        Raises:
            ToolError: The call failed; its message is told to the model.
        """


def advertised(tools: Mapping[str, Tool]) -> tuple[ToolDefinition, ...]:
    """What a model is told of its tools: each once, under its own name, aliases left out."""
    return tuple(tool.definition for name, tool in tools.items() if tool.definition.name == name)

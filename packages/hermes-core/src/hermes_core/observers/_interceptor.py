"""The contract of an interceptor."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.execution import ToolCall, ToolResult

__all__ = ["Interceptor"]


class Interceptor:
    """May replace a tool call before it runs, or its result before the model sees it. Subclass it.

    Interceptors see a call in the configured order and its result in the reverse order, as layers around the tool. What
    was replaced is kept in the result's metadata (`intercepted`); sampled tokens and messages never change. An
    interceptor that raises ends the trajectory as `environment_error`: a guard that fails must not let calls pass.
    """

    name: str = ""
    """As it is registered; written next to what it replaced."""

    async def before_call(self, call: ToolCall, *, trajectory_id: str, task_id: str) -> ToolCall:
        """Return the call to run; a different name or arguments, never a different id."""
        return call

    async def after_call(self, call: ToolCall, result: ToolResult, *, trajectory_id: str, task_id: str) -> ToolResult:
        """Return the result that the model will see."""
        return result

"""The tool `terminal`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from hermes_core.default_plugins.tools._answers import TIMEOUT_RANGE_S, clamped, command_answer, why_ended
from hermes_core.exceptions import ToolError
from hermes_core.execution import JsonValue, Slot
from hermes_core.tools import tool

__all__ = ["terminal"]

Seconds = Annotated[float, Field(allow_inf_nan=False)]


@tool(
    name="terminal",
    aliases=("bash",),
    timeout_s=TIMEOUT_RANGE_S[1] + 10,
    ignores=("network", "allow_network", "require_sandbox", "isolation"),
)
async def terminal(
    command: str, slot: Slot, timeout: Seconds | None = None, background: SkipJsonSchema[bool] = False
) -> JsonValue:
    """Run a command in the sandbox and return its output and exit code.

    The shell is POSIX sh, fresh for every call: the working directory is always the workspace, and variables do not
    persist. Files do.

    Args:
        command: The command line, as `sh -c` takes it.
        timeout: Seconds after which it is killed, 1 to 600; 30 by default.
        background: Refused, and not in the schema: models trained on other systems send it.
    """
    if background:
        raise ToolError(
            "background is not supported: end the command with & and redirect its output to a file, "
            "or use terminal_stateful, where jobs persist"
        )
    seconds = clamped(timeout)
    done = await slot.exec(command, timeout_s=seconds)
    return command_answer(done.exit_code, done.stdout, done.stderr, why_ended(done, seconds))

"""The tool `terminal`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from hermes_core.exceptions import ToolError
from hermes_core.execution import JsonValue, Slot
from hermes_core.tools import tool

__all__ = ["terminal"]

TIMEOUT_RANGE_S = (1.0, 600.0)
OUTPUT_CHARACTERS = 50_000
DEFAULT_TIMEOUT_S = 30.0

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
        raise ToolError("background is not supported: end the command with & and redirect its output to a file")
    low, high = TIMEOUT_RANGE_S
    seconds = DEFAULT_TIMEOUT_S if timeout is None else min(max(timeout, low), high)
    done = await slot.exec(command, timeout_s=seconds)
    answer: dict[str, JsonValue] = {
        "exit_code": done.exit_code,
        "stdout": _clipped(done.stdout),
        "stderr": _clipped(done.stderr),
    }
    if done.timed_out:
        answer["error"] = f"killed after {seconds:g} s"
    elif done.limit is not None:
        answer["error"] = f"killed: limit {done.limit} exceeded"
    elif done.signal is not None:
        answer["error"] = f"killed by signal {done.signal}"
    return answer


def _clipped(text: str) -> str:
    """Head and tail of a long output around a counted marker."""
    left_out = len(text) - OUTPUT_CHARACTERS
    if left_out <= 0:
        return text
    half = OUTPUT_CHARACTERS // 2
    return f"{text[:half]}\n[hermes: {left_out} characters left out]\n{text[-half:]}"

"""The tool `terminal_stateful`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hermes_core.default_plugins.tools._answers import TIMEOUT_RANGE_S, clamped, command_answer
from hermes_core.default_plugins.tools._shell import PersistentShell
from hermes_core.exceptions import ToolError
from hermes_core.execution import JsonValue, Slot
from hermes_core.tools import tool

__all__ = ["terminal_stateful"]

Seconds = Annotated[float, Field(allow_inf_nan=False)]

_SHELL = "terminal_stateful"
_ENDED = "terminal_stateful: ended"


@tool(
    name="terminal_stateful",
    timeout_s=TIMEOUT_RANGE_S[1] + 60,
    ignores=("network", "allow_network", "require_sandbox", "isolation"),
)
async def terminal_stateful(command: str, slot: Slot, timeout: Seconds | None = None) -> JsonValue:
    """Run a command in a shell that persists, and return its output and exit code.

    Working directory, variables, functions and background jobs are kept from call to call. The shell is bash where the
    sandbox has it, else sh. Commands get no standard input. After a timeout the command is killed, and the shell goes
    on; a command that ends the shell (exit) is told, and the next call starts a new one.

    Args:
        command: The command line; it may have several lines.
        timeout: Seconds after which it is killed, 1 to 600; 30 by default.
    """
    if "\0" in command:
        raise ToolError("command has a NUL character in it, which no shell can read")
    note = None
    shell = slot.belongings.find(_SHELL, PersistentShell)
    if shell is None or not await shell.runs(slot):
        if shell is not None or slot.belongings.find(_ENDED, bool):
            note = "the shell of the calls before had ended: this is a new one, without its state"
        shell = await PersistentShell.start(slot)
        slot.belongings.keep(_SHELL, shell)
        slot.belongings.drop(_ENDED)
    done = await shell.run(slot, command, clamped(timeout))
    if done.ended:
        slot.belongings.drop(_SHELL)
        slot.belongings.keep(_ENDED, True)
    answer = command_answer(done.exit_code, done.stdout, done.stderr, done.error)
    if note is not None:
        answer["note"] = note
    return answer

"""What `hermes sandbox exec` does."""

from __future__ import annotations

import dataclasses
import json
import signal
from typing import TYPE_CHECKING

import click

from hermes_core.cli._leasing import leased
from hermes_core.cli._standard_streams import piped_input, pour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.cli._leasing import Wanted
    from hermes_core.execution import ExecResult

__all__ = ["run_command"]

EXIT_TIMED_OUT = 124
EXIT_SIGNALLED = 128
DESCRIPTORS = {"stdout": 1, "stderr": 2}


async def run_command(wanted: Wanted, command: Sequence[str], *, timeout_s: float, as_json: bool) -> int:
    """Run a command in a fresh sandbox, between this process's standard streams; return the exit code to end with."""
    async with leased(wanted) as slot:
        stdin = await piped_input()
        try:
            result = await slot.exec(command, timeout_s=timeout_s, stdin=stdin, on_output=None if as_json else _pass_on)
        except BrokenPipeError:
            return EXIT_SIGNALLED + signal.SIGPIPE  # whoever read our output has had enough
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(result), indent=2))
    return _ended(result, timeout_s)


async def _pass_on(stream: str, data: bytes) -> None:
    await pour(DESCRIPTORS[stream], data)


def _ended(result: ExecResult, timeout_s: float) -> int:
    """Say what the exit code cannot, and return it."""
    if result.limit is not None and not result.timed_out:
        click.echo(f"the command breached a limit: {result.limit}", err=True)
    if result.timed_out:
        click.echo(f"the command was killed: it ran longer than {timeout_s:g} s", err=True)
        return EXIT_TIMED_OUT
    if result.exit_code is not None:
        return result.exit_code
    number = result.signal or signal.SIGKILL
    click.echo(f"the command was ended by signal {number} ({signal.strsignal(number)})", err=True)
    return EXIT_SIGNALLED + number

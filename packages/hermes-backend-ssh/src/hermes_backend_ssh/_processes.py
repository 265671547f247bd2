"""Processes of the ssh client."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import anyio

from hermes_backend_ssh._errors import SSH_FAILED, connection_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anyio.abc import Process

    from hermes_backend_ssh._address import Address

__all__ = ["Done", "end_process", "lines_of", "run_there", "start_process"]


@dataclass(frozen=True, slots=True)
class Done:
    """A command there that has ended.

    Attributes:
        status: Its exit status.
        output: Its standard output.
        said: The lines of its standard error.
    """

    status: int
    output: str
    said: Sequence[str]


async def run_there(address: Address, script: str, stdin: bytes | IO[bytes] = b"", *, control: Path) -> Done:
    """Run a script on a machine to its end, in a session of a connection if there is one.

    Raises:
        BackendUnavailableError, SandboxLostError: There is no connection.
    """
    with ExitStack() as files:
        given, output, errors = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        if isinstance(stdin, bytes):
            given.write(stdin)
            given.seek(0)
        process = await start_process(
            address.command(script, control=control),
            stdin=given if isinstance(stdin, bytes) else stdin,
            stdout=output,
            stderr=errors,
        )
        try:
            status = await process.wait()
        finally:
            await end_process(process)
        output.seek(0)
        errors.seek(0)
        done = Done(status, output.read().decode(errors="replace"), lines_of(errors.read()))
    if status == SSH_FAILED:
        raise connection_error(done.said, address)
    return done


async def start_process(command: Sequence[str], **streams: Any) -> Process:  # noqa: ANN401 - as anyio has them
    """Start ssh in a session of its own, so that Ctrl-C in the terminal does not take the connection away."""
    # Shielded, as nobody would have a process whose start was given up.
    with anyio.CancelScope(shield=True):
        process = await anyio.open_process(command, env=_environment(), start_new_session=True, **streams)
    return process


async def end_process(process: Process) -> None:
    """Kill a process if it still runs, and wait for it."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
            await process.wait()
        await process.aclose()


def lines_of(data: bytes) -> list[str]:
    """Return the lines of what a program printed, without empty ones."""
    return [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}  # what it says is read

"""Runs the engine's `build`, which converts and unpacks images."""

from __future__ import annotations

import os
import signal
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import anyio

from hermes_backend_singularity._engine import GLOBAL, build_environment, explain
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["convert"]

LONGEST_COMPLAINT = 16384
KEEPER = '"$@"; exit $?'
"""Waits for the program; the program itself does not keep what it inherits."""


async def convert(engine: Path, source: str, target: Path, *, temporary: Path, lock: int) -> None:
    """Make an image: a file if `target` ends in `.sif`, else a folder.

    Args:
        engine: The program.
        source: What to make it from.
        target: Where it is to be.
        temporary: Folder for its temporary files, which it does not remove when it is killed.
        lock: A descriptor that is kept open as long as the program runs, so that a lock outlives this process.

    Raises:
        BackendUnavailableError: The program failed.
    """
    options = () if target.suffix == ".sif" else ("--sandbox",)
    with anyio.CancelScope(shield=True):  # it takes no time, and half a start could not be ended
        process = await anyio.open_process(
            ["/bin/sh", "-c", KEEPER, "hermes-image", str(engine), *GLOBAL, "build", *options, str(target), source],
            stdin=DEVNULL,
            stdout=DEVNULL,
            env=build_environment(temporary),
            start_new_session=True,
            pass_fds=(lock,),
        )
    said = b""
    try:
        assert process.stderr is not None
        async for chunk in process.stderr:
            said = (said + chunk)[-LONGEST_COMPLAINT:]
        status = await process.wait()
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()
    if status != 0:
        message, hint = explain(said.decode(errors="replace").splitlines())
        raise BackendUnavailableError(f"image {source} cannot be converted: {message}", hint=hint)

"""Runs an agent for this machine alone in the foreground."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from subprocess import STDOUT
from typing import TYPE_CHECKING

import anyio
import click

from hermes_backend_nomad._dev_api import DevApi
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from anyio.abc import Process

    from hermes_backend_nomad._dev_agent import DevAgent

__all__ = ["run_agent"]

READY_S = 120.0
END_S = 20.0
POLL_S = 0.2
TAIL_LINES = 12
TAIL_BYTES = 16_000
LOG = "agent.log"
KEEPER = """
exec 3<&0
"$@" </dev/null 3<&- &
agent=$!
(read -r _ <&3; kill -TERM $agent) &
reader=$!
exec 3<&- </dev/null
wait $agent
status=$?
kill $reader 2>/dev/null
exit $status
"""
"""Runs the agent, and ends it when standard input does, which it does however whoever started this ends."""


async def run_agent(agent: DevAgent, program: str, configuration: Path, token: str | None, verbose: bool) -> int:
    """Run an agent until SIGINT, SIGTERM or SIGHUP; say how to use it once it is ready.

    A signal stops its jobs before it ends; a second one leaves them.

    Args:
        agent: Which one.
        program: The program `nomad`.
        configuration: The file with its configuration.
        token: What it is to let in for, if it asks for tokens.
        verbose: Whether to show its log.

    Returns:
        The exit code that a shell would report for the signal.

    Raises:
        BackendUnavailableError: It cannot be started, or ended by itself.
    """
    received: list[int] = []
    failed: list[Exception] = []
    log = configuration.with_name(LOG)
    process = await _started([program, "agent", "-config", str(configuration)], log)
    api = DevApi(agent, token)
    work, clearing = anyio.CancelScope(), anyio.CancelScope()
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_await_signals, (work, clearing), received)
            if verbose:
                tasks.start_soon(_show, log)
            try:
                with work:
                    await _serve(agent, api, process, log, token)
            except Exception as error:
                failed.append(error)  # kept apart from the task group, which would wrap it
            with clearing:
                if not failed:
                    click.echo("\nits jobs are being stopped (once more to leave them as they are)", err=True)
                    await api.stop_everything()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)
    if failed:
        raise failed[0]
    if clearing.cancelled_caught:
        click.echo("what still runs goes on, and is taken over when it is started again", err=True)
    return 128 + received[0]


async def _started(command: list[str], log: Path) -> Process:
    with log.open("wb") as file:
        return await anyio.open_process(
            ["/bin/sh", "-c", KEEPER, "hermes-nomad", *command],
            stdout=file,
            stderr=STDOUT,
            start_new_session=True,  # Ctrl-C is for the command, which ends the agent in its time
        )


async def _await_signals(scopes: tuple[anyio.CancelScope, ...], received: list[int]) -> None:
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)  # as nohup wants
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hang_up) as signals:
        async for number in signals:
            received.append(number)
            scopes[min(len(received), len(scopes)) - 1].cancel()


async def _serve(agent: DevAgent, api: DevApi, process: Process, log: Path, token: str | None) -> None:
    """Say how to use the agent once it is ready, and wait for it to end by itself."""
    with anyio.move_on_after(READY_S) as patience:
        while token is not None and not await api.set_token():
            _see_that_it_runs(process, log)
            await anyio.sleep(POLL_S)
        while not (drivers := await api.drivers()):
            _see_that_it_runs(process, log)
            await anyio.sleep(POLL_S)
    if patience.cancelled_caught:
        _say_last_lines(log)
        raise BackendUnavailableError(f"the agent was not ready within {READY_S:g} s", hint=f"its log: {log}")
    _announce(agent, drivers, token)
    await process.wait()
    _see_that_it_runs(process, log)


def _see_that_it_runs(process: Process, log: Path) -> None:
    if process.returncode is not None:
        _say_last_lines(log)
        raise BackendUnavailableError(f"the agent ended with exit code {process.returncode}", hint=f"its log: {log}")


def _announce(agent: DevAgent, drivers: dict[str, str], token: str | None) -> None:
    fine = [name for name in ("docker", "raw_exec") if drivers.get(name) == ""]
    click.echo(f"Nomad at {agent.url}, with the drivers {', '.join(fine)}; its files are in {agent.data_dir}")
    if agent.docker and (trouble := drivers.get("docker", "not found")):
        click.echo(f"warning: no containers by Docker: {trouble}; --no-docker says nothing of it", err=True)
    click.echo(f"\n  export NOMAD_ADDR={agent.url}")
    if token is not None:
        click.echo(f"  export NOMAD_TOKEN={token}")
    if "docker" in fine:
        click.echo("  hermes sandbox exec --backend nomad -- uname -a")
    else:
        click.echo("  hermes sandbox exec --backend nomad-singularity -B image=FILE.sif -B user=NAME -- uname -a")
    click.echo("\nCtrl-C stops its jobs and ends it")


async def _end(process: Process) -> None:
    assert process.stdin is not None
    await process.stdin.aclose()
    with anyio.move_on_after(END_S):
        await process.wait()
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.aclose()


async def _show(log: Path) -> None:
    """Show what is written to a file, until this is cancelled."""
    with log.open("rb") as file:
        while True:
            click.echo(file.read().decode(errors="replace"), nl=False, err=True)
            await anyio.sleep(POLL_S)


def _say_last_lines(log: Path) -> None:
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    click.echo("the last lines of its log:", err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)

"""The command `hermes sandbox nomad-dev`."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

import click

from hermes_core.exceptions import BackendUnavailableError, ConfigError

__all__ = ["nomad_dev"]

CONFIGURATION = "agent.hcl"
TOKEN = "token"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the configuration and all that the agent keeps.  [default: in $XDG_STATE_HOME or ~/.local/state; "
    "for root /var/lib/hermes/nomad]",
)
@click.option(
    "--http-port",
    type=click.IntRange(0, 65533),
    default=4646,
    show_default=True,
    help="Port of its API; the two after it are for other agents. 0 takes free ones.",
)
@click.option("--write-only", is_flag=True, help="Write the configuration, and start nothing.")
@click.option("--docker/--no-docker", default=True, show_default=True, help="Run containers by Docker.")
@click.option(
    "--acl", is_flag=True, help="Ask for a token, which is made and shown: for machines where others have accounts."
)
@click.option("--verbose", is_flag=True, help="Show the agent's log.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def nomad_dev(data_dir: Path | None, http_port: int, write_only: bool, docker: bool, acl: bool, verbose: bool) -> int:
    """Run a Nomad agent for this machine alone, until Ctrl-C.

    It is server and client at once, listens on loopback, and runs tasks by Docker and as plain processes. Ctrl-C stops
    its jobs with all their tasks before it ends.
    """
    import anyio

    from hermes_backend_nomad._dev_agent import DevAgent, default_folder, dev_configuration
    from hermes_backend_nomad._dev_ports import take_ports
    from hermes_backend_nomad._dev_run import run_agent

    program = shutil.which("nomad")
    if program is None and not write_only:
        raise BackendUnavailableError(
            "nomad is not on PATH",
            hint="install it (developer.hashicorp.com/nomad/install), or --write-only writes its configuration",
        )
    folder = (data_dir or default_folder()).absolute()
    started_elsewhere = write_only and http_port
    http, rpc, serf = (http_port, http_port + 1, http_port + 2) if started_elsewhere else take_ports(http_port)
    agent = DevAgent(folder, http_port=http, rpc_port=rpc, serf_port=serf, docker=docker, acl=acl)
    configuration = _write(folder, dev_configuration(agent))
    if program is None or write_only:
        click.echo(f"nomad agent -config {configuration}")
        click.echo(f"export NOMAD_ADDR={agent.url}")
        if acl:
            click.echo("nomad acl bootstrap")
        return 0
    return anyio.run(run_agent, agent, program, configuration, _token(folder) if acl else None, verbose)


def _token(folder: Path) -> str:
    """The token that is kept in a folder, made if there is none."""
    path = folder / TOKEN
    try:
        with suppress(FileExistsError), open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(str(uuid.uuid4()))
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be kept: {error.strerror}", hint="--data-dir names another folder") from error


def _write(folder: Path, text: str) -> Path:
    path = folder / CONFIGURATION
    from hermes_backend_nomad._reach import closed_to, make_open

    try:
        make_open(folder)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="--data-dir names another") from error
    if os.geteuid() == 0 and (closed := closed_to(None, folder)) is not None:
        click.echo(f"warning: {closed} is closed to others, so that no task can be an ordinary user's", err=True)
    return path

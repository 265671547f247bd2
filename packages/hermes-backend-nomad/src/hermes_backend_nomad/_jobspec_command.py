"""The command `hermes sandbox jobspec`."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import click

__all__ = ["jobspec"]


@click.command()
@click.option(
    "--backend",
    type=click.Choice(["nomad", "nomad-singularity"]),
    default="nomad",
    show_default=True,
    help="Sandbox backend.",
)
@click.option("-B", "backend_pairs", multiple=True, metavar="KEY=VALUE", help="Backend configuration.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def jobspec(backend: str, backend_pairs: tuple[str, ...]) -> None:
    """Print the job of a sandbox as Nomad would get it, with the user's own merged in; nothing is registered.

    What is printed is the JSON that `nomad job plan -json -` and `nomad job run -json -` take. The token of a sandbox
    is in a variable of the job, which Hermes writes before it registers one: a job that is run by hand waits for it.
    """
    import anyio

    specification = anyio.run(partial(_specification, backend, backend_pairs))
    click.echo(json.dumps({"Job": specification}, indent=2))


async def _specification(backend: str, pairs: tuple[str, ...]) -> dict[str, Any]:
    from hermes_backend_nomad._apptainer_backend import NomadSingularityBackend
    from hermes_backend_nomad._config import NomadConfig, NomadSingularityConfig
    from hermes_backend_nomad._docker_backend import NomadBackend
    from hermes_core.cli import key_values
    from hermes_core.config import configured

    values, what = key_values(pairs, "-B"), f"backend {backend!r}"
    if backend == "nomad":
        return await NomadBackend(configured(NomadConfig, values, what=what)).job_specification()
    return await NomadSingularityBackend(configured(NomadSingularityConfig, values, what=what)).job_specification()

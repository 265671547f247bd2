"""The commands `hermes sandbox runtime …`."""

from __future__ import annotations

import json

import click

__all__ = ["runtime"]


@click.group()
def runtime() -> None:
    """Look after the runtime folder, by which slots can be had in images that have no Python."""


@runtime.command()
@click.option("--json", "as_json", is_flag=True, help="Print how it is used as JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def build(as_json: bool) -> None:
    """Build the runtime folder, unless it is there, and print its path.

    It holds this machine's Python without what no daemon needs, bubblewrap, the daemon, and every library that they
    need. Backends build it by themselves when they first need it; build it beforehand where that would be too late.
    """
    from hermes_core.sandbox.portable import RUNTIME_INSIDE, build_runtime, runtime_of

    folder = build_runtime()
    if as_json:
        arguments = runtime_of(folder, RUNTIME_INSIDE).arguments
        click.echo(json.dumps({"folder": str(folder), "inside": RUNTIME_INSIDE, "arguments": arguments}, indent=2))
    else:
        click.echo(folder)

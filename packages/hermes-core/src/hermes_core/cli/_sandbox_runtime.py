"""The commands `hermes sandbox runtime …`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hermes_core.exceptions import UsageError

__all__ = ["runtime"]


@click.group()
def runtime() -> None:
    """Look after the runtime folder, by which slots can be had in images that have no Python."""


@runtime.command()
@click.option(
    "--archive",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it as a tar.gz too, for where it has to be fetched, and print that path instead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print how it is used as JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def build(archive: Path | None, as_json: bool) -> None:
    """Build the runtime folder, unless it is there, and print its path.

    It holds this machine's Python without what no daemon needs, bubblewrap, the daemon, and every library that they
    need. Backends build it by themselves when they first need it; build it beforehand where that would be too late.
    """
    from hermes_core.sandbox.portable import RUNTIME_INSIDE, build_runtime, runtime_of

    folder = build_runtime()
    told: dict[str, object] = {"folder": str(folder), "inside": RUNTIME_INSIDE}
    told["arguments"] = runtime_of(folder, RUNTIME_INSIDE).arguments
    if archive is not None:
        told["archive"], told["sha256"] = str(archive.absolute()), _archive(folder, archive)
    click.echo(json.dumps(told, indent=2) if as_json else told.get("archive", folder))


def _archive(folder: Path, target: Path) -> str:
    from hermes_core.sandbox.portable import archive_runtime

    try:
        return archive_runtime(folder, target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from None

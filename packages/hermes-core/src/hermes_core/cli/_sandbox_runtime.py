"""The commands `hermes sandbox runtime …`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from hermes_core.cli._ages import age
from hermes_core.exceptions import UsageError

__all__ = ["runtime"]

DAY_S = 86400.0
MEGABYTE = 1_000_000


@click.group()
def runtime() -> None:
    """Look after the runtime folders, by which slots can be had in images that have no Python."""


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


@runtime.command()
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(0),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="Only those that no process has begun to use for so long.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def prune(days: float, dry_run: bool, as_json: bool) -> None:
    """Remove runtime folders that nobody needs any more.

    Every version of Hermes and every interpreter makes its own. One that a process uses stays, and one that is needed
    again is built again.
    """
    from hermes_core.sandbox.portable import prune_runtimes

    try:
        found = prune_runtimes(days * DAY_S, only_look=dry_run)
    except OSError as error:
        raise UsageError(f"{error.filename} cannot be removed: {error.strerror or error}") from None
    if as_json:
        rows = [{**dataclasses.asdict(each), "folder": str(each.folder)} for each in found]
        useless = [row for row in rows if row.pop("useless")]
        click.echo(json.dumps({"removed": useless, "kept": [row for row in rows if row not in useless]}, indent=2))
        return
    for each in found:
        what = ("would remove" if dry_run else "removed") if each.useless else "kept"
        why = "in use" if each.in_use else f"last used {age(each.unused_s)} ago"
        click.echo(f"{what} {each.folder} ({each.size_bytes / MEGABYTE:.0f} MB): {why}")
    if not any(each.useless for each in found):
        click.echo("nothing to remove")


def _archive(folder: Path, target: Path) -> str:
    from hermes_core.sandbox.portable import archive_runtime

    try:
        return archive_runtime(folder, target)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from None

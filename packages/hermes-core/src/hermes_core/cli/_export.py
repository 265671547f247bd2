"""The command `hermes export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hermes_core.exceptions import RunDirectoryError, UsageError

if TYPE_CHECKING:
    from hermes_core.exporters import Exporter, ExportReport

__all__ = ["export"]


@click.command()
@click.argument("run", metavar="RUN_DIR", type=click.Path(path_type=Path))
@click.option("--format", "form", default="rows", show_default=True, metavar="NAME", help="Exporter.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where to; must not exist.")
@click.option("--allow-off-policy", is_flag=True, help="Take turns whose logprobs are not the sampling distribution's.")
@click.pass_context
def export(ctx: click.Context, /, run: Path, form: str, out: Path, allow_off_policy: bool) -> None:
    """Write a run's trajectories in another format. What is left out is counted, with the reason."""
    exporter: Exporter = ctx.find_root().obj.load("exporter", form)
    source = run / "trajectories.jsonl"
    if not source.is_file():
        raise RunDirectoryError(f"{run} holds no run: {source.name} is missing", hint="give the folder of --out")
    if out.exists():
        raise UsageError(f"{out} exists already", hint="choose another --out")
    report = _write(exporter, source, out, allow_off_policy=allow_off_policy)
    click.echo(f"wrote {report.rows} rows to {out}")
    for reason, count in report.left_out.items():
        click.echo(f"left out {count} trajectories: {reason}", err=True)


def _write(exporter: Exporter, source: Path, out: Path, *, allow_off_policy: bool) -> ExportReport:
    """Write beside the target and move it there when it is whole."""
    from hermes_core.trajectory import read_trajectories

    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("w", encoding="utf-8") as target:
            report = exporter.export(read_trajectories(source), target, allow_off_policy=allow_off_policy)
            target.flush()
            os.fsync(target.fileno())
        part.rename(out)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return report

"""The command `hermes doctor`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from hermes_core.diagnosis import Finding
from hermes_core.exceptions import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_core.plugins import PluginManager

__all__ = ["doctor"]

_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red"}
_DIAGNOSED = ("backend", "model", "environment")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what works on this machine, and what to do about what does not.

    The exit code is 0 when sandboxes work here, 1 when they do not.
    """
    from hermes_core.cli._checks import machine_findings

    findings = [*machine_findings(), *_plugin_findings(ctx.find_root().obj)]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    ctx.exit(int(any(finding.required and finding.state != "ok" for finding in findings)))


def _plugin_findings(plugins: PluginManager) -> Iterator[Finding]:
    for plugin in plugins.plugins:
        if plugin.error is not None:
            yield Finding(plugin.distribution, "broken", str(plugin.error), plugin.error.hint or "update or remove it")
    for kind in _DIAGNOSED:
        for registration in plugins.registrations(kind):
            try:
                diagnose = getattr(registration.load(), "diagnose", None)
            except PluginError as error:
                yield Finding(f"{kind} {registration.name}", "broken", str(error), "update or remove its distribution")
                continue
            if diagnose is not None:
                yield from diagnose()


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=True)
    for column in ("", "what", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        # Text, not markup: a path or a message may contain brackets.
        state = Text(finding.state, style=_COLOURS[finding.state])
        table.add_row(state, Text(finding.name), Text(finding.detail), Text(finding.hint))
    Console().print(table)

"""The commands that list what is installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from hermes_core.exceptions import HermesError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.plugins import PluginManager, Registration

__all__ = ["as_json_option", "backends", "envs", "formats", "models", "plugins", "show", "tools", "toolsets"]

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


def show(title: str, columns: Sequence[str], rows: list[dict[str, object]], as_json: bool) -> None:
    """Print rows as a table, or as a JSON list of objects."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))  # a summary may hold brackets: no markup
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _rows(manager: PluginManager, kind: str) -> list[dict[str, object]]:
    return [_row(registration) for registration in manager.registrations(kind)]


def _row(registration: Registration) -> dict[str, object]:
    return {
        "name": registration.name,
        "summary": registration.summary,
        "distribution": registration.distribution,
    }


@click.command()
@as_json_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List plugins, what they register, and why one failed."""
    rows: list[dict[str, object]] = []
    for plugin in ctx.find_root().obj.plugins:
        registered = [f"{r.kind} {r.name}" for r in plugin.registrations]
        rows.append(
            {
                "distribution": plugin.distribution,
                "version": plugin.version,
                "plugin": plugin.name,
                "state": "failed" if plugin.error else "ok",
                "registers": registered if as_json or not plugin.error else [f"error: {plugin.error}"],
                "error": str(plugin.error) if plugin.error else None,
            }
        )
    show("Plugins", ("distribution", "version", "plugin", "state", "registers"), rows, as_json)


@click.command()
@as_json_option
@click.pass_context
def tools(ctx: click.Context, as_json: bool) -> None:
    """List tools, and why one cannot be used here."""
    rows: list[dict[str, object]] = []
    for registration in ctx.find_root().obj.registrations("tool"):
        row = _row(registration)
        try:
            tool = registration.load()
            row |= {"runs": "in the sandbox" if tool.needs_slot else "on the host", "unavailable": tool.unavailable()}
            if as_json:
                row["parameters"] = tool.definition.parameters
        except HermesError as error:
            row |= {"runs": None, "unavailable": str(error)}
        rows.append(row)
    show("Tools", ("name", "summary", "runs", "unavailable", "distribution"), rows, as_json)


@click.command()
@as_json_option
@click.pass_context
def toolsets(ctx: click.Context, as_json: bool) -> None:
    """List toolsets and the tools that they expand to."""
    from hermes_core._catalogue import Catalogue

    manager: PluginManager = ctx.find_root().obj
    catalogue = Catalogue(manager)
    rows = _rows(manager, "toolset")
    for row in rows:
        try:
            row["tools"] = list(catalogue.tool_names([str(row["name"])]))
        except HermesError as error:
            row["tools"] = [f"error: {error}"]
    rows.append(
        {
            "name": "full",
            "summary": "Every tool (also: all, *)",
            "distribution": "hermes-core",
            "tools": [r.name for r in manager.registrations("tool")],
        }
    )
    show("Toolsets", ("name", "summary", "tools", "distribution"), rows, as_json)


@click.command()
@as_json_option
@click.pass_context
def backends(ctx: click.Context, as_json: bool) -> None:
    """List sandbox backends."""
    show("Backends", ("name", "summary", "distribution"), _rows(ctx.find_root().obj, "backend"), as_json)


@click.command()
@as_json_option
@click.pass_context
def envs(ctx: click.Context, as_json: bool) -> None:
    """List environments."""
    show("Environments", ("name", "summary", "distribution"), _rows(ctx.find_root().obj, "environment"), as_json)


@click.group(invoke_without_command=True)
@as_json_option
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List models; subcommands fetch and serve them."""
    if ctx.invoked_subcommand is None:
        show("Models", ("name", "summary", "distribution"), _rows(ctx.find_root().obj, "model"), as_json)


@click.command()
@as_json_option
@click.pass_context
def formats(ctx: click.Context, as_json: bool) -> None:
    """List text forms of tool calls, for -M tool_call_format=NAME."""
    rows = _rows(ctx.find_root().obj, "tool-call format")
    show("Tool-call formats", ("name", "summary", "distribution"), rows, as_json)

"""Writes the reference of the command line: `python -m hermes_core.cli._reference > docs/reference/cli.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hermes_core.cli._main import hermes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["reference"]

WIDTH = 100
OPENING = """\
# The command line

Every command with its options, as `--help` shows them. This page is generated: `nox -s docs` writes it.

Errors are one line and a hint on standard error; `--debug` shows where they happened. Exit codes, where a command does
not say otherwise: 0 done, 2 wrong usage or something that could not start, 130 interrupted.
"""


def reference() -> str:
    """Describe every command of the installed plugins, in Markdown."""
    context = click.Context(hermes, info_name="hermes", terminal_width=WIDTH, **hermes.context_settings)
    return OPENING + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in _described(context))


def _described(context: click.Context) -> Iterator[tuple[str, str]]:
    command = context.command
    yield context.command_path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _described(
                    click.Context(found, info_name=name, parent=context, terminal_width=WIDTH, **found.context_settings)
                )


if __name__ == "__main__":
    click.echo(reference(), nl=False)

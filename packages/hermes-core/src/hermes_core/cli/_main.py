"""The command `hermes`: its subcommands are plugins, imported when they are used."""

from __future__ import annotations

import sys
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from hermes_core.exceptions import HermesError, UsageError
from hermes_core.plugins import create_plugin_manager

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.plugins import PluginManager

__all__ = ["EXIT_INTERRUPTED", "EXIT_USAGE", "hermes"]

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class PluginGroup(click.Group):
    """A group whose commands are registered by plugins and imported when they are used.

    A registered name of two words is a command of a group: `models pull` hangs below `models`.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of one word, sorted."""
        return [r.name for r in _plugins(ctx).registrations("command") if " " not in r.name]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command, and hang below it what plugins add to it."""
        plugins = _plugins(ctx)
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = plugins.load("command", cmd_name)
        for registration in plugins.registrations("command"):
            group, _, name = registration.name.partition(" ")
            if group == cmd_name and name and isinstance(command, click.Group):
                command.add_command(registration.load(), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(r.name, r.summary) for r in _plugins(ctx).registrations("command") if " " not in r.name]
            )

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:  # noqa: ANN401 - click's own
        """Run, and turn every error into one line, a hint and the right exit code."""
        arguments = list(sys.argv[1:] if args is None else args)
        debug = "--debug" in takewhile(lambda argument: argument != "--", arguments)
        extra["standalone_mode"] = False
        try:
            sys.exit(super().main(arguments, *rest, **extra) or 0)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(EXIT_INTERRUPTED)
        except HermesError as error:
            if debug:
                raise
            _say(error)
            sys.exit(EXIT_USAGE)
        except Exception as error:
            if debug:
                raise
            click.echo(f"error: {type(error).__name__}: {error}", err=True)
            click.echo("hint: this is a defect of Hermes or of a plugin; --debug shows where", err=True)
            sys.exit(EXIT_USAGE)


def _say(error: HermesError) -> None:
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    elif not isinstance(error, UsageError):
        click.echo("hint: --debug shows where it happened", err=True)


def _plugins(ctx: click.Context) -> PluginManager:
    """The plugins of this invocation, found once."""
    root = ctx.find_root()
    if root.obj is None:
        root.obj = create_plugin_manager()
    found: PluginManager = root.obj
    return found


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from hermes_core import __version__

        click.echo(f"hermes {__version__}")
        ctx.exit()


@click.group(cls=PluginGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def hermes(debug: bool) -> None:
    """Run LLM agents on tasks in isolated sandbox slots."""

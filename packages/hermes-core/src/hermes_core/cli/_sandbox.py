"""The commands `hermes sandbox …`."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hermes_core.cli._ages import age
from hermes_core.cli._listings import as_json_option, show
from hermes_core.cli._main import EXIT_INTERRUPTED
from hermes_core.cli._sandbox_runtime import runtime
from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_core.cli._leasing import Wanted
    from hermes_core.sandbox import SandboxBackend, SandboxInfo

__all__ = ["sandbox"]

LONGEST_S = 604800
LEFT = "left behind"

backend_options = (
    click.option("--backend", default="local", show_default=True, metavar="NAME", help="Sandbox backend."),
    click.option("-B", "backend_pairs", multiple=True, metavar="KEY=VALUE", help="Backend configuration."),
)
slot_options = (
    *backend_options,
    click.option("--network", type=click.Choice(["none", "host"]), default="none", show_default=True, help="Network."),
    click.option("--image", metavar="IMAGE", help="Image of the sandbox, where the backend has any."),
    click.option("--profile", metavar="NAME", help="Sandbox profile of the settings."),
)
debug_option = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")


def _with(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """All of some options, in the order in which help shows them."""

    def decorate(command: Any) -> Any:  # noqa: ANN401 - click's own
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def sandbox() -> None:
    """Run commands in a sandbox by hand, and look after what sandboxes leave behind."""


sandbox.add_command(runtime)


@sandbox.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_with(*slot_options)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0, LONGEST_S, min_open=True),
    default=LONGEST_S,
    metavar="SECONDS",
    help="Kill the command after so long.  [default: a week]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON instead of the output.")
@debug_option
@click.pass_context
def exec_(ctx: click.Context, /, command: tuple[str, ...], timeout_s: float, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - click's own
    """Run COMMAND in a slot of a fresh sandbox, which is gone afterwards.

    The command is a program and its arguments; for a shell line write: -- sh -c 'LINE'. It gets the standard input if
    that is piped or redirected from a file.

    The exit code is the command's own; 128 and the signal's number if a signal ended it, 124 when it ran out of time,
    2 when it could not be run, 130 when it was interrupted.
    """
    import anyio

    from hermes_core.cli._interrupts import interruptible
    from hermes_core.cli._sandbox_exec import run_command

    work = partial(run_command, _wanted(ctx, given), command, timeout_s=timeout_s, as_json=as_json)
    code = anyio.run(interruptible, work, "interrupted: ending the sandbox")
    ctx.exit(EXIT_INTERRUPTED if code is None else code)


@sandbox.command()
@_with(*slot_options)
@debug_option
@click.pass_context
def shell(ctx: click.Context, /, **given: Any) -> None:  # noqa: ANN401 - click's own
    """Open an interactive shell in a slot of a fresh sandbox, which is gone afterwards.

    The exit code is the shell's own; 128 and the signal's number if a signal ended it, 2 when it could not be started,
    130 when it was interrupted from outside.
    """
    import anyio

    from hermes_core.cli._interrupts import interruptible
    from hermes_core.cli._sandbox_shell import run_shell

    if not os.isatty(0):
        raise UsageError("a shell needs a terminal, and standard input is none", hint="hermes sandbox exec -- COMMAND")
    code = anyio.run(interruptible, partial(run_shell, _wanted(ctx, given)), "interrupted: ending the sandbox")
    ctx.exit(EXIT_INTERRUPTED if code is None else code)


@sandbox.command("list")
@_with(*backend_options)
@as_json_option
@debug_option
@click.pass_context
def list_(ctx: click.Context, /, backend: str, backend_pairs: tuple[str, ...], as_json: bool) -> None:
    """List the sandboxes of everyone, those that run and those that dead owners left behind."""
    import anyio

    rows = [_row(info) for info in anyio.run(_backend(ctx, backend, backend_pairs).list)]
    show("Sandboxes", ("name", "owner", "state", "age"), rows, as_json)


@sandbox.command()
@_with(*backend_options)
@as_json_option
@debug_option
@click.pass_context
def cleanup(ctx: click.Context, /, backend: str, backend_pairs: tuple[str, ...], as_json: bool) -> None:
    """Remove what dead owners left behind; what lives is never touched.

    The exit code is 1 when something that was left behind could not be removed.
    """
    import anyio

    removed, left = anyio.run(_clean_up, _backend(ctx, backend, backend_pairs))
    if as_json:
        click.echo(json.dumps({"removed": list(map(_row, removed)), "left": list(map(_row, left))}, indent=2))
    else:
        for info in removed:
            click.echo(f"removed {_title(info)}")
        for info in left:
            click.echo(f"left {_title(info)}: {info.state}" if info.state != LEFT else f"cannot remove {_title(info)}")
        if not removed:
            click.echo("nothing to remove")
    ctx.exit(int(any(info.state == LEFT for info in left)))


async def _clean_up(backend: SandboxBackend) -> tuple[Sequence[SandboxInfo], Sequence[SandboxInfo]]:
    removed = await backend.cleanup()
    return removed, await backend.list()


def _backend(ctx: click.Context, name: str, pairs: tuple[str, ...]) -> SandboxBackend:
    from hermes_core._catalogue import Catalogue
    from hermes_core.cli._run_options import key_values

    return Catalogue(ctx.find_root().obj).backend(name, key_values(pairs, "-B"))


def _wanted(ctx: click.Context, given: dict[str, Any]) -> Wanted:
    from hermes_core.cli._leasing import Wanted
    from hermes_core.cli._run_options import key_values

    backend_config = key_values(given.pop("backend_pairs"), "-B")
    return Wanted(plugins=ctx.find_root().obj, backend_config=backend_config, **given)


def _title(info: SandboxInfo) -> str:
    return f"{info.name} of {info.owner}"


def _row(info: SandboxInfo) -> dict[str, object]:
    return {**dataclasses.asdict(info), "age": age(info.age_s)}

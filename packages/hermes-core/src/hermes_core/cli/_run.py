"""The command `hermes run`."""

from __future__ import annotations

import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hermes_core.cli._main import EXIT_INTERRUPTED
from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from hermes_core.cli._run_options import RunOptions
    from hermes_core.plugins import PluginManager
    from hermes_core.runs import Run

__all__ = ["run"]

EXIT_FAILURES = 1
_SECRET = re.compile(r"^((?:-[EMB])?[\w-]*(?:key|token|secret|password)=).+", re.IGNORECASE | re.DOTALL)


@click.command()
@click.argument("environment", metavar="ENV", required=False)
@click.option("--model", metavar="NAME", help="Model: oracle, local, openai, …")
@click.option("--backend", metavar="NAME", help="Sandbox backend.  [default: local]")
@click.option("--tasks", type=int, metavar="N", help="Tasks to take from the split.")
@click.option("--group-size", type=int, metavar="G", help="Trajectories of each task.  [default: 1]")
@click.option("--concurrency", type=int, metavar="C", help="Most trajectories at once.  [default: 16]")
@click.option("--split", type=click.Choice(["train", "eval"]), help="Which tasks.  [default: train]")
@click.option("--limit", type=int, metavar="N", help="Finish at most N trajectories now; --resume does the rest.")
@click.option("--seed", type=int, help="Decides the tasks and their order.  [default: 0]")
@click.option("--toolsets", metavar="A,B", help="Narrow the environment's toolsets.")
@click.option("--out", metavar="DIR", help="The run's folder.  [default: runs/ENV-MODEL-TIME]")
@click.option("--resume", is_flag=True, help="Finish a run that was interrupted: only what is missing runs.")
@click.option("-L", "limit_pairs", multiple=True, metavar="KEY=VALUE", help="Agent limit: max_steps, max_tokens, …")
@click.option("-S", "sampling_pairs", multiple=True, metavar="KEY=VALUE", help="Sampling: temperature, max_tokens, …")
@click.option("--deadline", "deadline_s", type=float, metavar="S", help="Seconds for an attempt at a trajectory.")
@click.option("-E", "environment_pairs", multiple=True, metavar="KEY=VALUE", help="Environment configuration.")
@click.option("-M", "model_pairs", multiple=True, metavar="KEY=VALUE", help="Model configuration.")
@click.option("-B", "backend_pairs", multiple=True, metavar="KEY=VALUE", help="Backend configuration.")
@click.option("--base-url", metavar="URL", help="Short for -M base_url=URL.")
@click.option("--debug-model", metavar="DIR", help="Short for -M debug_dir=DIR: write each model request to a file.")
@click.option("--config", "file", type=click.Path(path_type=Path), metavar="FILE.yaml", help="All of these in a file.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def run(ctx: click.Context, /, resume: bool, file: Path | None, **given: Any) -> None:  # noqa: ANN401 - click's own
    """Run a model on an environment's tasks in sandboxes, and write the trajectories to a folder.

    The exit code is 0 when everything was scored, 1 when the infrastructure failed some trajectories (--resume tries
    them again), 2 when the run could not start, 130 when it was interrupted.
    """
    import anyio

    options = _options(file, given)
    code = anyio.run(_run, options, resume, ctx.find_root().obj)
    ctx.exit(code)


def _options(file: Path | None, given: dict[str, Any]) -> RunOptions:
    from hermes_core.cli._run_options import key_values, read_options

    given.pop("debug")
    toolsets = given.pop("toolsets")
    given["toolsets"] = tuple(toolsets.split(",")) if toolsets else None
    given["limits"] = key_values(given.pop("limit_pairs"), "-L")
    given["sampling"] = key_values(given.pop("sampling_pairs"), "-S")
    given["environment_config"] = key_values(given.pop("environment_pairs"), "-E")
    given["backend_config"] = key_values(given.pop("backend_pairs"), "-B")
    model = key_values(given.pop("model_pairs"), "-M")
    short = {"base_url": given.pop("base_url"), "debug_dir": given.pop("debug_model")}
    given["model_config"] = {**{name: value for name, value in short.items() if value}, **model}
    return read_options(file, given)


async def _run(options: RunOptions, resume: bool, plugins: PluginManager) -> int:
    from hermes_core.cli._interrupts import interruptible
    from hermes_core.runs import default_directory

    if resume and not options.out:
        raise UsageError("--resume needs to know which run", hint="give its folder with --out DIR")
    out = Path(options.out) if options.out else default_directory(options.environment, options.model)
    work = partial(_run_to_the_end, options, resume, plugins, out)
    done = await interruptible(work, "interrupted: finishing what was begun")
    if done is None:
        _say_how_to_resume(out)
        return EXIT_INTERRUPTED
    _summary(done)
    return EXIT_FAILURES if done.statistics.failures else 0


async def _run_to_the_end(options: RunOptions, resume: bool, plugins: PluginManager, out: Path) -> Run:
    from hermes_core._catalogue import Catalogue
    from hermes_core._hermes import Hermes
    from hermes_core.cli._progress import RunProgress

    # Before the backend is got ready, which may build an image first.
    catalogue = Catalogue(plugins)
    environment = catalogue.environment(options.environment, options.environment_config)
    model = catalogue.model(options.model, options.model_options)
    async with Hermes(backend=options.backend, backend_config=options.backend_config, plugins=plugins) as hermes:
        with RunProgress(hermes.pool_status) as progress:
            return await hermes.run(
                environment,
                model=model,
                tasks=options.tasks,
                group_size=options.group_size,
                concurrency=options.concurrency,
                split=options.split,
                seed=options.seed,
                limit=options.limit,
                toolsets=options.toolsets,
                limits=options.limits,
                sampling=options.sampling,
                deadline_s=options.deadline_s,
                out=out,
                resume=resume,
                observers=[progress],
            )


def _say_how_to_resume(out: Path) -> None:
    arguments = [_SECRET.sub(r"\1***", argument) for argument in sys.argv[1:] if argument != "--resume"]
    if "--out" not in arguments and not any(argument.startswith("--out=") for argument in arguments):
        arguments += ["--out", str(out)]
    click.echo(f"finish it with: {shlex.join(['hermes', *arguments, '--resume'])}", err=True)


def _summary(run: Run) -> None:
    from rich.console import Console
    from rich.table import Table

    statistics = run.statistics
    mean = "-" if statistics.mean_reward is None else f"{statistics.mean_reward:.3f}"
    rows = [
        ("trajectories", str(statistics.trajectories)),
        ("mean reward", mean),
        *((f"  {outcome}", str(count)) for outcome, count in sorted(statistics.outcomes.items())),
        ("infrastructure failures", str(statistics.failures)),
        ("duration", f"{statistics.duration_s:.1f} s"),
        ("written to", str(run.directory)),
    ]
    table = Table(show_header=False)
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)
    if statistics.failures:
        click.echo(f"some trajectories failed, see {run.directory}/failures.jsonl; --resume tries them again", err=True)

"""The command `hermes models serve`."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hermes_core.exceptions import ConfigError, ModelResponseError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from hermes_model_llamacpp._serving import Serving

__all__ = ["serve"]

_LEAST_CONTEXT = 256  # tokens; less holds no prompt with a tool in it


@click.command()
@click.argument("model", required=False)
@click.option("--file", help="The GGUF file's path inside a repository of the hub.  [env var: LLAMA_CPP_HF_FILE]")
@click.option("--download", is_flag=True, help="Fetch a file of the hub that is not on this machine.")
@click.option(
    "--alias",
    envvar="LLAMA_CPP_ALIAS",
    show_envvar=True,
    help="The model's name in answers; by default the preset's or the file's.",
)
@click.option(
    "--host", default="127.0.0.1", envvar="LLAMA_CPP_HOST", show_default=True, show_envvar=True, help="Listen here."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    envvar="LLAMA_CPP_PORT",
    show_default=True,
    show_envvar=True,
    help="0 takes a free one.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=4,
    envvar="LLAMA_CPP_PARALLEL",
    show_default=True,
    show_envvar=True,
    help="Turns sampled at once; at least as many as a group has trajectories.",
)
@click.option(
    "--context",
    type=click.IntRange(min=1),
    default=32768,
    show_default=True,
    help="Tokens in all; turns sampled at once share them evenly.",
)
@click.option(
    "--threads-http",
    type=click.IntRange(min=1),
    default=4,
    envvar="LLAMA_CPP_THREADS_HTTP",
    show_default=True,
    show_envvar=True,
    help="Connections that are served at once; further ones wait.",
)
@click.option("--key", help="What requests must carry; by default a random one, which is printed.")
@click.option("--no-key", is_flag=True, help="Answer everybody.")
@click.option(
    "--binary", metavar="PATH", help="A llama-server; by default the one on PATH, else the bundled llama.cpp."
)
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Append llama.cpp's log to this file.")
@click.option("--verbose", is_flag=True, help="Show llama.cpp's log.")
def serve(
    model: str | None,
    file: str | None,
    download: bool,
    alias: str | None,
    host: str,
    port: int,
    parallel: int,
    context: int,
    threads_http: int,
    key: str | None,
    no_key: bool,
    binary: str | None,
    log: Path | None,
    verbose: bool,
) -> int:
    """Serve MODEL by llama.cpp, OpenAI-compatible, until Ctrl-C.

    MODEL is a GGUF file, a preset, or a repository of the hub (OWNER/NAME or OWNER/NAME:QUANTISATION) whose file is in
    the cache of the hub's client or of llama.cpp; by default LLAMA_CPP_HF_REPO. Nothing is downloaded without
    --download. Without MODEL, list the presets.
    """
    import anyio

    from hermes_model_llamacpp._binary import find_binary
    from hermes_model_llamacpp._port import take_port
    from hermes_model_llamacpp._serving import Serving, serve_until_signal

    model = model or os.environ.get("LLAMA_CPP_HF_REPO")
    if model is None:
        _list_presets()
        return 0
    if no_key and key:
        raise UsageError("--key and --no-key exclude each other", hint="leave one of them out")
    path, name = _find(model, file, download)
    with tempfile.TemporaryDirectory(prefix="hermes-serve-") as folder:
        serving = Serving(
            path=path,
            alias=alias or name,
            host=host,
            slots=parallel,
            context=_share(context, parallel),
            threads_http=threads_http,
            key="" if no_key else key or secrets.token_urlsafe(24),
            binary=find_binary(binary),
            port=take_port(host, port),
            log=_opened(log or Path(folder) / "llama.log"),
            verbose=verbose,
        )
        _warn(serving)
        return anyio.run(serve_until_signal, serving)


def _list_presets() -> None:
    from hermes_model_llamacpp._catalog import CATALOG
    from hermes_model_llamacpp._hub import HUB_MODELS

    for known in CATALOG.values():
        click.echo(f"{known.name}  {known.summary}: {known.file if known.file.exists() else _how_to_pull(known.name)}")
    for model in HUB_MODELS.values():
        click.echo(f"{model.name}  {model.summary}: {model.repo} {model.file}")


def _how_to_pull(name: str) -> str:
    return f"hermes models pull {name}"


def _find(model: str, file: str | None, download: bool) -> tuple[Path, str]:
    """The GGUF file of what the user named, and a name for the model.

    Raises:
        ConfigError: It is not on this machine, or is no GGUF file.
        UnknownNameError: It is none of the things that can be named.
    """
    from hermes_model_llamacpp._catalog import CATALOG
    from hermes_model_llamacpp._hub import HUB_MODELS, is_repository

    presets = [*CATALOG, *HUB_MODELS]
    if model in HUB_MODELS:
        preset = HUB_MODELS[model]
        return _checked(_of_hub(preset.repo, file or preset.file, download)), model
    if file is None and model == os.environ.get("LLAMA_CPP_HF_REPO"):
        file = os.environ.get("LLAMA_CPP_HF_FILE") or None
    if is_repository(model) and not model.endswith(".gguf") and not Path(model).exists():
        path = _of_hub(model, file, download)
        return _checked(path), path.stem
    if file is not None:
        raise UsageError(f"--file goes with a repository of the hub, and {model!r} is none", hint="leave --file out")
    if model in CATALOG:
        if not CATALOG[model].file.exists():
            raise ConfigError(f"{model} is not on this machine", hint=_how_to_pull(model))
        return _checked(CATALOG[model].file), model
    if "/" not in model and not model.endswith(".gguf") and not Path(model).exists():
        raise UnknownNameError("model", model, presets, hint=f"FILE.gguf, OWNER/NAME, or one of: {', '.join(presets)}")
    path = Path(model).expanduser()
    return _checked(path), path.stem


def _of_hub(name: str, file: str | None, download: bool) -> Path:
    from hermes_model_llamacpp._hub import NotHereError, find_in_caches

    try:
        return find_in_caches(name, file)
    except NotHereError:
        if not download:
            raise
    from hermes_model_llamacpp._download import download as fetch

    return fetch(name, file)


def _checked(path: Path) -> Path:
    from hermes_model_llamacpp._catalog import check_gguf

    try:
        check_gguf(path)
    except ModelResponseError as error:
        raise ConfigError(error.message, hint="name a file in llama.cpp's GGUF format, or a preset") from error
    return path.absolute()


def _share(context: int, parallel: int) -> int:
    share = context // parallel
    if share < _LEAST_CONTEXT:
        raise ConfigError(
            f"--context {context} leaves {share} tokens for each of --parallel {parallel}",
            hint=f"at least {_LEAST_CONTEXT} each: --context {_LEAST_CONTEXT * parallel}",
        )
    return share


def _opened(log: Path) -> Path:
    try:
        log.open("ab").close()
    except OSError as error:
        raise ConfigError(f"log {log} cannot be written: {error.strerror}", hint="--log names another file") from error
    return log.absolute()


def _warn(serving: Serving) -> None:
    if not serving.key and serving.host not in {"127.0.0.1", "localhost", "::1"}:
        click.echo(f"warning: whoever reaches {serving.host} may use the model; leave --no-key out", err=True)
    if serving.threads_http < serving.slots:
        click.echo(
            f"warning: --threads-http {serving.threads_http} keeps some of --parallel {serving.slots} idle", err=True
        )

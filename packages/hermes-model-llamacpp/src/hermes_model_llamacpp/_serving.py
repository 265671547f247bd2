"""Serving one model in the foreground, until a signal."""

from __future__ import annotations

import os
import shlex
import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio
import click
import httpx

from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import ModelUnreachableError
from hermes_model_llamacpp._binary import BinaryServer
from hermes_model_llamacpp._server import LlamaServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

__all__ = ["Serving", "serve_until_signal"]

_START_TIMEOUT_S = 900.0  # tens of gigabytes from a slow disk
_POLL_S = 0.2
_TAIL_LINES = 12
_TAIL_BYTES = 16_000
_EVERY_NETWORK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
# The model `openai` asks these first, so they are told where they are in use.
_FIRST_VARIABLES = ("ATROPOS_SERVER_BASE_URL", "ATROPOS_SERVER_API_KEY", "ATROPOS_SERVER_MODEL")
_VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "LLM_MODEL")


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and how.

    Attributes:
        path: A GGUF file.
        alias: The model's name in answers.
        host: Address to listen on.
        port: Port to listen on.
        slots: Sequences at once.
        context: Tokens of one sequence.
        threads_http: Requests that are talked to at once.
        key: What requests must carry; empty for nothing.
        binary: A `llama-server`, or None for the bundled llama.cpp.
        log: File that llama.cpp's log is appended to.
        verbose: Whether to show it, too.
    """

    path: Path
    alias: str
    host: str
    port: int
    slots: int
    context: int
    threads_http: int
    key: str
    binary: Path | None
    log: Path
    verbose: bool

    @property
    def address(self) -> str:
        """Where this machine reaches it."""
        host = _EVERY_NETWORK.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


class _Server(Protocol):
    def failure(self) -> str | None: ...


async def serve_until_signal(serving: Serving) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and say how to use it once it answers.

    Returns:
        The exit code that a shell would report for the signal.

    Raises:
        ModelError: The model cannot be loaded, or the server ended by itself.
    """
    before = serving.log.stat().st_size  # a log that is appended to
    received: list[int] = []
    try:
        async with background_tasks() as tasks:
            tasks.start_soon(_await_signal, tasks.cancel_scope, received)
            if serving.verbose:
                tasks.start_soon(_show_log, serving.log, before)
            await _serve(serving)
    except Exception:
        if not serving.verbose:
            _say_last_lines(serving.log, before)
        raise
    return 128 + received[0]


async def _await_signal(scope: anyio.CancelScope, received: list[int]) -> None:
    hang_up = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)  # as nohup wants
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, *hang_up) as signals:
        async for number in signals:
            received.append(number)
            scope.cancel()
            return


async def _serve(serving: Serving) -> None:
    try:
        async with _server(serving) as server:
            await _announce(serving)
            while True:
                if said := server.failure():
                    raise ModelUnreachableError(said)
                await anyio.sleep(_POLL_S)
    except ModelUnreachableError as error:
        raise ModelUnreachableError(error.message, hint=_hint(serving)) from error


def _hint(serving: Serving) -> str:
    return "less --context or --parallel needs less memory" if serving.verbose else "--verbose shows the whole log"


def _server(serving: Serving) -> AbstractAsyncContextManager[_Server]:
    start: Callable[..., AbstractAsyncContextManager[_Server]] = (
        LlamaServer if serving.binary is None else partial(BinaryServer, serving.binary)
    )
    return start(
        serving.path,
        context=serving.context,
        parallel=serving.slots,
        host=serving.host,
        port=serving.port,
        threads_http=serving.threads_http,
        api_key=serving.key,
        alias=serving.alias,
        log=serving.log,
        start_timeout_s=_START_TIMEOUT_S,
    )


async def _announce(serving: Serving) -> None:
    """Say how to use it, once it answers."""
    context = await _context_of_a_slot(serving)
    engine = serving.binary or "the bundled llama.cpp"
    click.echo(f"serving {serving.alias} ({serving.path.name}) with {engine}")
    fewer = "" if context == serving.context else f", as many as the model knows, not {serving.context}"
    click.echo(f"{serving.slots} slots of {context} tokens each{fewer}")
    base_url = f"{serving.address}/v1"
    first = any(os.environ.get(name) for name in (*_FIRST_VARIABLES, "NOUS_API_KEY"))
    names = _FIRST_VARIABLES if first else _VARIABLES
    values = (base_url, serving.key, serving.alias)
    click.echo("")
    for name, value in zip(names, values, strict=True):
        if value:
            click.echo(f"  export {name}={shlex.quote(value)}")
    model = shlex.quote(f"model={serving.alias}")
    click.echo(f"  hermes run arithmetic --model openai --base-url {base_url} -M {model}")
    click.echo("\nCtrl-C ends it")


async def _context_of_a_slot(serving: Serving) -> int:
    """What `/props` says, after `/health` said that the model is loaded.

    Raises:
        ModelUnreachableError: It does not answer `/health`.
    """
    headers = {"Authorization": f"Bearer {serving.key}"} if serving.key else {}
    async with httpx.AsyncClient(base_url=serving.address, headers=headers, trust_env=False, timeout=60) as http:
        try:
            (await http.get("/health")).raise_for_status()
            answer = await http.get("/props")
        except httpx.HTTPError as error:
            raise ModelUnreachableError(f"{serving.address}/health is not answered: {error}") from error
    if not answer.is_success:
        return serving.context  # an older server, which has no such address
    told: object = answer.json().get("default_generation_settings", {}).get("n_ctx")
    return min(told, serving.context) if isinstance(told, int) else serving.context


async def _show_log(log: Path, start: int) -> None:
    """Show what is written to a file from a position on, until this is cancelled."""
    with log.open("rb") as file:
        file.seek(start)
        try:
            while True:
                _show(file.read())
                await anyio.sleep(_POLL_S)
        finally:
            _show(file.read())


def _show(data: bytes) -> None:
    if data:
        click.echo(data.decode(errors="replace"), nl=False, err=True)


def _say_last_lines(log: Path, start: int) -> None:
    with log.open("rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
    if lines:
        click.echo("the last lines of llama.cpp's log:", err=True)
    for line in lines:
        click.echo(f"  {line}", err=True)

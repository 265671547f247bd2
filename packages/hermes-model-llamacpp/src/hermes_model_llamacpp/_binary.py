"""The user's own `llama-server`, owned by an async context manager."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, Self

import anyio
import httpx

from hermes_core.exceptions import ConfigError, ModelUnreachableError
from hermes_model_llamacpp._catalog import check_gguf
from hermes_model_llamacpp._server import lacks_tools, tools_template

__all__ = ["BinaryServer", "find_binary"]

_NAME = "llama-server"
_TETHER = Path(__file__).with_name("_tether.py")
_POLL_S = 0.1


def find_binary(named: str | None) -> Path | None:
    """The `llama-server` to use: the one that is named, else the one on PATH, else None.

    Raises:
        ConfigError: The one that is named is missing or not executable.
    """
    found = shutil.which(os.path.expanduser(named or _NAME))
    if found is None and named is not None:
        is_there = Path(named).expanduser().exists()
        raise ConfigError(
            f"{named} is {'not executable' if is_there else 'not there'}",
            hint="--binary names llama.cpp's llama-server; without it, the one on PATH or the bundled one is used",
        )
    return Path(found).absolute() if found else None


class BinaryServer:
    """A `llama-server` that serves one model; it ends with the context, and also when this process is killed.

    Args:
        binary: The program.
        path: A GGUF file.
        host: Address to listen on.
        port: Port to listen on.
        context: Tokens of one sequence.
        parallel: Sequences at once; further requests wait.
        threads_http: Requests that are talked to at once.
        api_key: What requests must carry; empty for nothing.
        alias: The model's name in answers.
        log: File to append its output to.
        start_timeout_s: Seconds that loading may take.
    """

    def __init__(
        self,
        binary: Path,
        path: Path,
        *,
        host: str,
        port: int,
        context: int,
        parallel: int,
        threads_http: int,
        api_key: str,
        alias: str,
        log: Path,
        start_timeout_s: float,
    ) -> None:
        self._path = path
        self._port = port
        self._host = host
        self._key = api_key
        self._log = log
        self._start_timeout_s = start_timeout_s
        self._command = [
            *(str(binary), "--model", str(path), "--alias", alias, "--host", host, "--port", str(port)),
            *("--ctx-size", str(context * parallel), "--parallel", str(parallel)),
            *("--threads-http", str(threads_http), "--jinja"),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file: IO[bytes] | None = None

    def failure(self) -> str | None:
        """How the server ended, or None while it runs."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"{self._command[0]} ended with {how}"

    async def __aenter__(self) -> Self:
        """Start it and wait until it answers `/health`.

        Raises:
            ModelResponseError: The file is not a GGUF file.
            ModelUnreachableError: It ended, or does not answer within `start_timeout_s`.
        """
        check_gguf(self._path)
        try:
            self._spawn()
            with anyio.move_on_after(self._start_timeout_s):
                await self._healthy()
                return self
            raise ModelUnreachableError(f"{self._command[0]} does not answer after {self._start_timeout_s:g} s")
        except BaseException:
            self._stop()
            raise

    async def __aexit__(self, *_: object) -> None:
        """End the process; open requests fail."""
        self._stop()

    def _spawn(self) -> None:
        template = ["--chat-template-file", str(tools_template())] if lacks_tools(self._path) else []
        tether = [sys.executable, "-I", str(_TETHER), str(os.getpid())]
        # The key is no argument: everybody on the machine may read those.
        key = {"LLAMA_API_KEY": self._key} if self._key else {}
        environment = {name: value for name, value in os.environ.items() if name != "LLAMA_API_KEY"} | key
        self._log_file = self._log.open("ab")
        self._process = subprocess.Popen(
            [*tether, *self._command, *template],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,  # Ctrl-C reaches the terminal's whole group; this process decides
        )

    async def _healthy(self) -> None:
        host = f"[{self._host}]" if ":" in self._host else self._host
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    if (await http.get(f"http://{host}:{self._port}/health")).is_success:
                        return
                except httpx.HTTPError:
                    pass  # it does not listen yet
                if said := self.failure():
                    raise ModelUnreachableError(said)
                await anyio.sleep(_POLL_S)

    def _stop(self) -> None:
        """End the process; without an await, so that no cancellation can come between."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it holds nothing that outlives it
            process.wait()
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None

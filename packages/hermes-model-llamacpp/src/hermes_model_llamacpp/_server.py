"""A llama.cpp server, owned by an async context manager."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

import anyio
import anyio.to_thread

from hermes_core.exceptions import ModelUnreachableError
from hermes_model_llamacpp._catalog import chat_template, check_gguf

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LlamaServer", "lacks_tools", "tools_template"]

_CHILD = Path(__file__).with_name("_child.py")
_logger = logging.getLogger(__name__)

_TOOLS_TEMPLATE = Path(__file__).with_name("chatml_tools.jinja")
# Threads that spin at every barrier starve each other where others compute too: with 8 busy processes on 2 cores four
# answers take 141 s, and 19 s with a short spin; on an idle machine 2.8 s and 3.0 s.
_PATIENCE = {"GOMP_SPINCOUNT": "1000"}
_VERBOSITY_WARNINGS, _VERBOSITY_REQUESTS = 2, 3  # levels of llama.cpp's log
_TAIL_BYTES = 4_000


class LlamaServer:
    """llama.cpp serving one model on a free port of the loopback address, with a random key.

    It runs in a process of its own: a native crash costs a trajectory and not the run, its log is a file and not the
    user's terminal, and its threads are not in a process that others fork. The process ends with the context, and also
    when this process is killed. `base_url` speaks the OpenAI API (chat with structured tool calls, completions),
    `address` llama.cpp's own.

    Args:
        path: A GGUF file.
        context: Tokens of one sequence.
        parallel: Sequences at once; further requests wait.
        threads: Threads that compute; by default one for each usable core.
        host: Address to listen on.
        port: 0 takes a free one.
        threads_http: Requests that are talked to at once; by default more than there are sequences.
        api_key: By default a random one; an empty one lets everybody in.
        alias: The model's name in answers; by default the file's name.
        tools_template: Serve chats with tools also where the model's own template is ChatML that knows none
            (SmolLM2), by a template of ours.
        log: File to append llama.cpp's log to; by default only warnings are kept, for error messages.
        start_timeout_s: Seconds that loading may take.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context: int = 4096,
        parallel: int = 4,
        threads: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        threads_http: int | None = None,
        api_key: str | None = None,
        alias: str | None = None,
        tools_template: bool = True,
        log: Path | None = None,
        start_timeout_s: float = 300.0,
    ) -> None:
        self.path = Path(path)
        self.api_key = secrets.token_urlsafe(24) if api_key is None else api_key
        self.alias = alias or self.path.name
        self._log = log
        self._tools_template = tools_template
        self._start_timeout_s = start_timeout_s
        self._settings = {
            "path": str(self.path),
            "alias": self.alias,
            "context": context,
            "parallel": parallel,
            "threads": threads or len(os.sched_getaffinity(0)),
            "host": host,
            "port": port,
            "threads_http": threads_http or parallel + 64,  # each open connection holds one
            "api_key": self.api_key,
            "verbosity": _VERBOSITY_REQUESTS if log else _VERBOSITY_WARNINGS,
            "parent": os.getpid(),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._log_file: IO[bytes] | None = None
        self._address = ""

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`, while it serves."""
        return self._address

    @property
    def base_url(self) -> str:
        """The OpenAI-compatible endpoint, while it serves."""
        return f"{self._address}/v1"

    @property
    def saved_slots(self) -> Path | None:
        """The folder into which `/slots/ID?action=save` writes, while it serves."""
        return Path(self._folder.name) if self._folder else None

    def failure(self) -> str | None:
        """How the server ended and what it said last, or None while it runs."""
        code = None if self._process is None else self._process.poll()
        if code is None:
            return None
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = self._last_words()
        return f"llama.cpp ended with {how}" + (f": {said}" if said else "")

    async def __aenter__(self) -> Self:
        """Load the model and wait until it serves.

        Raises:
            ModelResponseError: The file is not a GGUF file.
            ModelUnreachableError: llama.cpp cannot load it, or not within `start_timeout_s`.
        """
        check_gguf(self.path)
        try:
            answer = await self._start()
        except BaseException:
            self._stop()
            raise
        if "address" not in answer:
            said = self._last_words()
            self._stop()
            raise ModelUnreachableError(
                f"llama.cpp cannot load {self.path.name}: {said or answer['error']}",
                hint="-M log=FILE keeps llama.cpp's whole log",
            )
        self._address = answer["address"]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the process; open requests fail."""
        self._stop()

    async def _start(self) -> dict[str, str]:
        process = self._spawn()
        assert process.stdout is not None
        with anyio.move_on_after(self._start_timeout_s):
            line = await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
            if line:
                answer: dict[str, str] = json.loads(line)
                return answer
            process.wait()
            return {"error": self.failure() or "llama.cpp ended"}
        return {"error": f"not loaded after {self._start_timeout_s:g} s"}

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._log_file = self._log.open("ab") if self._log else tempfile.TemporaryFile()
        self._folder = tempfile.TemporaryDirectory(prefix="hermes-llamacpp-")
        if chat_template(self.path) is None:
            _logger.warning("%s has no chat template: llama.cpp uses ChatML", self.path.name)
        chatml = self._tools_template and lacks_tools(self.path)
        settings = {
            **self._settings,
            "saved_slots": f"{self._folder.name}/",
            "chat_template": _TOOLS_TEMPLATE.read_text(encoding="utf-8") if chatml else None,
        }
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log_file,
            env={**_PATIENCE, **os.environ},
        )
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended already; reading its answer says so
        return process

    def _stop(self) -> None:
        """End the process; without an await, so that no cancellation can come between."""
        self._address = ""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it holds nothing that outlives it
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if self._log_file is not None:
            self._log_file.close()
            self._log_file = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _last_words(self) -> str:
        """The last error that llama.cpp logged, else its last line."""
        name = self._log or (self._log_file and f"/proc/self/fd/{self._log_file.fileno()}")
        try:
            with open(str(name), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        errors = [line for line in lines if " E " in line]
        return (errors or lines or [""])[0 if errors else -1].strip()[:300]


def tools_template() -> Path:
    """The file with a ChatML template that knows tools."""
    return _TOOLS_TEMPLATE


def lacks_tools(path: Path) -> bool:
    """Whether a GGUF file's chat template is ChatML without tools."""
    template = chat_template(path)
    return template is not None and "<|im_start|>" in template and "tools" not in template

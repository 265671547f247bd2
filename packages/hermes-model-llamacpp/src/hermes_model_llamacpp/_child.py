"""The process that runs llama.cpp: standard library and xllamacpp only, started by `LlamaServer` as a script.

The first line on standard input is the settings as JSON, the one line on standard output the address or an error. It
lives until standard input ends, which it does however the parent ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import sys
from typing import Any

_PARENT_CHECK_S = 1.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def start(settings: dict[str, Any]) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """Load the model and serve it.

    Raises:
        RuntimeError: llama.cpp refused.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["alias"]}
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["context"] * settings["parallel"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.cache_ram_mib = 0  # by default up to 8 GiB of old sequences, which slots chosen by number never ask for
    params.hostnames = [settings["host"]]
    params.port = settings["port"]
    params.api_keys = [settings["api_key"]] if settings["api_key"] else []
    params.use_jinja = True
    if settings["chat_template"]:
        params.chat_template = settings["chat_template"]
    params.slot_save_path = settings["saved_slots"]
    params.cache_idle_slots = False  # a finished sequence stays in its slot until another needs the slot
    params.n_threads_http = settings["threads_http"]
    params.verbosity = settings["verbosity"]
    params.ui = False
    return xllamacpp.Server(params)


def die_with_parent(wanted: bool) -> None:
    """Have the kernel end this process with its parent: while a model is loaded, nothing here watches for that.

    Only then: it follows the thread that started this process, which need not live as long as the server.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0)


def wait_for_end(parent: int) -> None:
    """Return when standard input ends, or when the parent is gone though a fork of it holds the other end."""
    while os.getppid() == parent:
        if select.select([0], [], [], _PARENT_CHECK_S)[0] and not os.read(0, 4096):
            return


def main() -> None:
    """Serve until told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    settings = json.loads(sys.stdin.buffer.readline())
    answer_to = os.dup(1)
    os.dup2(2, 1)  # whatever native code prints is log
    die_with_parent(True)
    try:
        server = start(settings)
        answer = {"address": server.listening_address}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    die_with_parent(False)
    os.write(answer_to, json.dumps(answer).encode() + b"\n")
    if "address" in answer:
        wait_for_end(settings["parent"])
        shutil.rmtree(settings["saved_slots"], ignore_errors=True)  # the owner was killed, or it kills this process
    os._exit(0)  # the destructor waits for requests that nobody reads any more


if __name__ == "__main__":
    main()

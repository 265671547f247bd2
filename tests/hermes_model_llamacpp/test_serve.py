from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from click.testing import CliRunner
from tests.process_tree import children

from hermes_core.exceptions import ConfigError, UnknownNameError, UsageError
from hermes_model_llamacpp._hub import HUB_MODELS
from hermes_model_llamacpp._serve_command import serve

if TYPE_CHECKING:
    from collections.abc import Iterator

HERMES = (sys.executable, "-W", "error", "-c", "from hermes_core.cli import main; main()")
VARIABLES = ("ATROPOS_SERVER", "OPENAI_", "LLAMA_", "LLM_", "LOCAL_LLM", "NOUS_", "HF_")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "serve-a-local-model.md"
SMALL = ("--port", "0", "--context", "4096", "--parallel", "2")

# Stands in for llama.cpp's llama-server, which is not on every machine: it takes the same options, writes down what it
# was started with, and answers /health.
STAND_IN = f"""#!{sys.executable}
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
record = {{"argv": sys.argv[1:], "key": os.environ.get("LLAMA_API_KEY"), "pid": os.getpid()}}
print("the stand-in's log", flush=True)
if os.environ.get("STAND_IN_FAILS"):
    sys.exit("error: failed to allocate the stand-in's memory")
open(os.environ["STAND_IN_RECORD"], "w").write(json.dumps(record))
http.server.HTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text(STAND_IN)
    program.chmod(0o755)
    return program


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """Enough of a model for those who do not load it."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    return path


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(VARIABLES):
            monkeypatch.delenv(name)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 20
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not runs(pid)


@contextmanager
def serving(*arguments: str, **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, once it said how to end it, and all that it said until then."""
    process = subprocess.Popen(
        [*HERMES, "models", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            said = ""
            for line in process.stdout:
                said += line
                if line.startswith("Ctrl-C"):
                    break
            else:
                pytest.fail(f"it ended: {process.stderr.read()}")
            yield process, said
        finally:
            process.kill()
            process.wait()


def exports(said: str) -> dict[str, str]:
    return dict(re.findall(r"^  export (\w+)=(.*)$", said, re.MULTILINE))


def refuse(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HERMES, "models", "serve", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        check=False,
        timeout=60,
    )


@pytest.mark.local_model
@pytest.mark.namespaces
def test_a_served_model_answers_chats_and_runs_until_ctrl_c(weights: Path, tmp_path: Path) -> None:
    with serving("smollm2", "--port", "0") as (process, said):
        assert re.sub(r"127.0.0.1:\d+", "127.0.0.1:8080", re.sub(r"KEY=.+", "KEY=…", said)) in GUIDE.read_text()
        [child] = children(process.pid)
        told = exports(said)
        body = {
            "model": told["LLM_MODEL"],
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": 8,
        }
        chat = f"{told['OPENAI_BASE_URL']}/chat/completions"
        with httpx.Client(timeout=120, trust_env=False) as http:
            assert http.post(chat, json=body).status_code == 401
            answer = http.post(chat, json=body, headers={"Authorization": f"Bearer {told['OPENAI_API_KEY']}"})
        assert answer.json()["model"] == "smollm2"
        assert answer.json()["choices"][0]["message"]["content"]

        [line] = re.findall(r"^  hermes (.*)$", said, re.MULTILINE)
        out = tmp_path / "out"
        done = subprocess.run(
            [*HERMES, *line.split(), "-M", "extra_body={max_tokens: 32}", "--tasks", "2", "--out", str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "OPENAI_API_KEY": told["OPENAI_API_KEY"]},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        rows = [json.loads(row) for row in (out / "trajectories.jsonl").read_text().splitlines()]
        assert len(rows) == 2

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert not runs(child)


@pytest.mark.local_model
def test_the_server_dies_with_a_command_that_is_killed(weights: Path) -> None:
    with serving(str(weights), *SMALL, "--no-key") as (process, said):
        told = exports(said)
        assert list(told) == ["OPENAI_BASE_URL", "LLM_MODEL"]
        assert httpx.get(f"{told['OPENAI_BASE_URL']}/models", trust_env=False).json()["data"][0]["id"] == weights.stem
        props = told["OPENAI_BASE_URL"].replace("/v1", "/props")
        assert httpx.get(props, trust_env=False).status_code == 200
        [child] = children(process.pid)
        process.kill()
        process.wait()
        wait_until_gone(child)


@pytest.mark.local_model
def test_a_model_that_cannot_be_loaded_shows_the_end_of_the_log(weights: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(weights.read_bytes()[:20_000_000])
    done = refuse(str(half), *SMALL)
    assert done.returncode == 2
    assert "the last lines of llama.cpp's log:\n" in done.stderr
    assert "error: llama.cpp cannot load half.gguf" in done.stderr
    assert "hint: --verbose shows the whole log" in done.stderr


def test_a_llama_server_on_the_path_is_started_as_asked(stand_in: Path, gguf: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    env = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "STAND_IN_RECORD": str(record), "LLAMA_API_KEY": "other"}
    arguments = (str(gguf), "--port", "0", "--key", "secret", "--threads-http", "8", "--alias", "mine")
    with serving(*arguments, **env) as (process, said):
        assert f"serving mine (tiny.gguf) with {stand_in}\n4 slots of 8192 tokens each\n" in said
        started = json.loads(record.read_text())
        assert started["argv"] == [
            *("--model", str(gguf), "--alias", "mine", "--host", "127.0.0.1"),
            *("--port", exports(said)["OPENAI_BASE_URL"].removesuffix("/v1").rpartition(":")[2]),
            *("--ctx-size", "32768", "--parallel", "4", "--threads-http", "8", "--jinja"),
        ]
        assert started["key"] == exports(said)["OPENAI_API_KEY"] == "secret"
        assert children(process.pid) == [started["pid"]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        assert not runs(started["pid"])


def test_the_llama_server_that_is_named_dies_with_a_command_that_is_killed(
    stand_in: Path, gguf: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    env = {"STAND_IN_RECORD": str(record), "LLAMA_API_KEY": "other"}
    with serving(str(gguf), "--port", "0", "--no-key", "--binary", str(stand_in), **env) as (process, _):
        started = json.loads(record.read_text())
        assert started["key"] is None
        process.kill()
        process.wait()
        wait_until_gone(started["pid"])


def test_a_llama_server_that_ends_is_an_error(stand_in: Path, gguf: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    log = tmp_path / "llama.log"
    arguments = (str(gguf), "--port", "0", "--binary", str(stand_in), "--log", str(log), "--verbose")
    with serving(*arguments, STAND_IN_RECORD=str(record)) as (process, _):
        os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
        assert process.wait(timeout=60) == 2
        assert process.stderr is not None
        said = process.stderr.read()
    assert said.startswith("the stand-in's log\n")
    assert f"error: {stand_in} ended with signal SIGKILL" in said
    assert log.read_text() == "the stand-in's log\n"

    done = refuse(str(gguf), "--port", "0", "--binary", str(stand_in), STAND_IN_FAILS="1")
    assert done.returncode == 2
    assert "  error: failed to allocate the stand-in's memory\n" in done.stderr
    assert "ended with exit code 1\n" in done.stderr


def test_defaults_come_from_the_environment(stand_in: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--some--repo-GGUF" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name in ("a-Q4.gguf", "a-Q8.gguf"):
        (snapshot / name).write_bytes(b"GGUF" + bytes(64))
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = str(probe.getsockname()[1])
    record = tmp_path / "record.json"
    env = {
        "HF_HOME": str(tmp_path),
        "LLAMA_CPP_HOST": "127.0.0.2",
        "LLAMA_CPP_PORT": port,
        "LLAMA_CPP_HF_REPO": "some/repo-GGUF",
        "LLAMA_CPP_HF_FILE": "a-Q8.gguf",
        "LLAMA_CPP_ALIAS": "theirs",
        "LLAMA_CPP_PARALLEL": "8",
        "LLAMA_CPP_THREADS_HTTP": "12",
        "ATROPOS_SERVER_BASE_URL": "http://elsewhere/v1",
        "STAND_IN_RECORD": str(record),
    }
    with serving("--binary", str(stand_in), **env) as (_, said):
        assert exports(said)["ATROPOS_SERVER_BASE_URL"] == f"http://127.0.0.2:{port}/v1"
        assert json.loads(record.read_text())["argv"] == [
            *("--model", str(snapshot / "a-Q8.gguf"), "--alias", "theirs", "--host", "127.0.0.2", "--port", port),
            *("--ctx-size", "32768", "--parallel", "8", "--threads-http", "12", "--jinja"),
        ]


def test_a_port_in_use_is_told_with_who_has_it(gguf: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = refuse(str(gguf), "--port", str(port))
    assert done.returncode == 2
    who = Path("/proc/self/comm").read_text().strip()
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is in use by {who} (process {os.getpid()})\nhint: --port 0 takes a free one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.gguf"], "missing.gguf cannot be read: No such file"),
        (["text.gguf"], "text.gguf is not a GGUF file"),
        (["tiny.gguf", "--binary", "no/llama-server"], "no/llama-server is not there"),
        (["tiny.gguf", "--binary", "./text.gguf"], "./text.gguf is not executable"),
        (["tiny.gguf", "--context", "512"], "--context 512 leaves 128 tokens for each of --parallel 4"),
        (["tiny.gguf", "--host", "203.0.113.1"], "cannot listen on port 8080 of 203.0.113.1"),
        (["tiny.gguf", "--log", "no/folder/log"], "log no/folder/log cannot be written"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    arguments: list[str], said: str, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gguf.parent / "text.gguf").write_text("no model")
    monkeypatch.chdir(gguf.parent)
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        CliRunner().invoke(serve, arguments, catch_exceptions=False)
    assert caught.value.hint


def test_options_that_exclude_each_other_are_refused(gguf: Path) -> None:
    for arguments in ([str(gguf), "--key", "x", "--no-key"], [str(gguf), "--file", "other.gguf"]):
        with pytest.raises(UsageError):
            CliRunner().invoke(serve, arguments, catch_exceptions=False)


def test_presets_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError) as caught:
        CliRunner().invoke(serve, ["gpt-5"], catch_exceptions=False)
    listed = CliRunner().invoke(serve, [], catch_exceptions=False).stdout
    for name in ("smollm2", "hermes-4-36b", "glm-4.7-flash"):
        assert name in str(caught.value.hint)
        assert f"{name}  " in listed


def test_a_hub_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    for preset in HUB_MODELS.values():
        with pytest.raises(ConfigError) as caught:
            CliRunner().invoke(serve, [preset.name], catch_exceptions=False)
        assert f"hf download {preset.repo} {preset.file}" in str(caught.value.hint)
    assert f"error: {caught.value}\nhint: {caught.value.hint}\n" in GUIDE.read_text()
    with pytest.raises(ConfigError, match=re.escape("*Q4*.gguf of some/repo is not on this machine")):
        CliRunner().invoke(serve, ["some/repo:Q4"], catch_exceptions=False)


def test_a_hub_model_is_found_where_llama_cpp_keeps_it(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path))
    preset = HUB_MODELS["hermes-4-36b"]
    for name in (preset.file, "other-Q8_0.gguf", "mmproj-F16.gguf", "big-00002-of-00003.gguf"):
        (tmp_path / f"{preset.repo.replace('/', '_')}_{name}").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ConfigError, match="2 GGUF files of NousResearch") as caught:
        CliRunner().invoke(serve, [preset.repo], catch_exceptions=False)
    assert caught.value.hint == f"--file FILE: {preset.file}, other-Q8_0.gguf"
    record = tmp_path / "record.json"
    common = ("--port", "0", "--binary", str(stand_in))
    for model, file, alias in (
        (preset.name, preset.file, preset.name),
        (f"{preset.repo}:q8_0", "other-Q8_0.gguf", f"{preset.repo.replace('/', '_')}_other-Q8_0"),
    ):
        with serving(model, *common, STAND_IN_RECORD=str(record)):
            argv = json.loads(record.read_text())["argv"]
        assert argv[1].endswith(f"_{file}")
        assert argv[3] == alias

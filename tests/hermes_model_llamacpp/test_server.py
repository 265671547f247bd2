from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import httpx
import pytest

from hermes_core.exceptions import ModelResponseError, ModelUnreachableError
from hermes_model_llamacpp import LlamaServer
from hermes_model_llamacpp._catalog import chat_template

pytestmark = [pytest.mark.anyio, pytest.mark.local_model]

TERMINAL = {
    "type": "function",
    "function": {
        "name": "terminal",
        "description": "Run a command in the sandbox and return its output.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
}


def children() -> set[int]:
    """Processes that this one started and that still run."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def cut(model: Path, target: Path) -> None:
    target.write_bytes(model.read_bytes()[:20_000_000])


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def client(server: LlamaServer, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key or server.api_key}", "Connection": "close"}
    return httpx.AsyncClient(base_url=server.address, headers=headers, timeout=120)


async def test_it_serves_on_the_loopback_with_a_key_and_leaves_nothing(
    weights: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before, handler = children(), signal.getsignal(signal.SIGINT)
    async with LlamaServer(weights, context=512, parallel=1) as server:
        assert server.address.startswith("http://127.0.0.1:")
        async with client(server) as http, client(server, "wrong") as stranger:
            assert (await http.get("/v1/models")).json()["data"][0]["id"] == weights.name
            assert (await stranger.post("/tokenize", json={"content": "x"})).status_code == 401
        process = children() - before
        assert len(process) == 1
        assert server.api_key not in command_line(process.pop())
        folder = server.saved_slots
    assert children() == before
    assert folder is not None
    assert not folder.exists()
    assert signal.getsignal(signal.SIGINT) is handler
    said = capfd.readouterr()
    assert said.out == said.err == ""


async def test_cancelling_the_start_leaves_nothing(weights: Path) -> None:
    before = children()
    with anyio.move_on_after(0.05):
        async with LlamaServer(weights):
            await anyio.sleep_forever()
    assert children() == before


def test_it_ends_when_its_owner_is_killed(weights: Path) -> None:
    program = f"""
import anyio
from hermes_model_llamacpp import LlamaServer
async def main():
    async with LlamaServer({str(weights)!r}, context=512, parallel=1) as server:
        print(server._process.pid, server.saved_slots, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        pid, folder = owner.stdout.readline().split()
    owner.kill()
    owner.wait()
    for _ in range(100):
        if not runs(int(pid)):
            break
        time.sleep(0.05)
    assert not runs(int(pid))
    assert not Path(folder).exists()


async def test_a_file_without_a_template_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bare.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelUnreachableError):
        async with LlamaServer(path, context=256, parallel=1):
            pass
    assert "bare.gguf has no chat template: llama.cpp uses ChatML" in caplog.text


@pytest.mark.parametrize("content", [b"not a model", b""])
async def test_another_file_is_refused_before_anything_starts(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelResponseError, match="is not a GGUF file"):
        async with LlamaServer(path):
            pass
    with pytest.raises(ModelResponseError, match="cannot be read"):
        async with LlamaServer(tmp_path / "missing.gguf"):
            pass


async def test_a_broken_model_is_one_line_with_the_reason(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "half.gguf"
    cut(weights, path)
    before = children()
    with pytest.raises(ModelUnreachableError, match="corrupted or incomplete"):
        async with LlamaServer(path):
            pass
    assert children() == before


async def test_the_log_goes_to_the_file_that_is_named(weights: Path, tmp_path: Path) -> None:
    async with LlamaServer(weights, context=512, parallel=1, log=tmp_path / "llama.log"):
        pass
    assert "model loaded" in (tmp_path / "llama.log").read_text()


async def test_chats_are_answered_in_text(weights: Path) -> None:
    async with LlamaServer(weights, context=1024, parallel=2) as server, client(server) as http:
        body = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 20}
        answer = (await http.post(f"{server.base_url}/chat/completions", json=body)).json()
        assert answer["choices"][0]["message"]["content"]


@pytest.mark.parametrize("choice", ["required", "auto"])
async def test_chats_with_tools_are_answered_with_structured_calls(weights: Path, choice: str) -> None:
    text = "Count the files of the folder by running code with the terminal tool."
    body = {
        "messages": [{"role": "user", "content": text}],
        "tools": [TERMINAL],
        "tool_choice": choice,
        "max_tokens": 200,
        "temperature": 0.0,
    }
    async with LlamaServer(weights, context=2048, parallel=2) as server, client(server) as http:
        answer = (await http.post(f"{server.base_url}/chat/completions", json=body)).json()
    choice_made = answer["choices"][0]
    assert choice_made["finish_reason"] == "tool_calls", choice_made
    assert choice_made["message"]["tool_calls"][0]["function"]["name"] == "terminal"


def test_the_chat_template_is_read_from_the_file(weights: Path) -> None:
    template = chat_template(weights)
    assert template is not None
    assert template.startswith("{% for message in messages %}")

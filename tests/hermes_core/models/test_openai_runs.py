"""Runs on an endpoint that fails in every way: nothing is lost, nothing is scored wrongly, no key is anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from hermes_core import Hermes
from hermes_core.config import load_settings
from hermes_core.exceptions import ConfigError
from hermes_core.plugins import PluginSource, create_plugin_manager, installed_plugins
from hermes_core.testing import ChatAnswer, FakeChatServer, SumsEnvironment, completion, streamed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hermes_core.plugins import PluginManager

SECRET = "sk-secret-marker"
SUMS = """
from hermes_core import Entry, Toolset, hookimpl

BOTH = Toolset("both", tools=("add",))

@hookimpl
def hermes_tools():
    return [Entry("add", "hermes_core.testing._sums:add", "Add")]

@hookimpl
def hermes_toolsets():
    return [Entry("both", "sums_tools:BOTH", "Sums")]
"""


class Flaky:
    """Solves sums with the tool, but fails at first each time, in ways that take turns; on one sum it fails always."""

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._tries: Counter[str] = Counter()

    def __call__(self, request: dict[str, Any]) -> ChatAnswer | Mapping[str, Any]:
        told = request["messages"]
        (left,) = re.findall(r"(\d+)\+1\?", told[1]["content"])
        if left == "2":
            return ChatAnswer(f"out of order, {SECRET}", status=500, headers={"Retry-After": "0"})
        if told[-1]["role"] == "tool":
            body = completion(str(json.loads(told[-1]["content"])["output"]))
        else:
            body = completion(tool_calls=[{"name": "add", "arguments": json.dumps({"a": int(left), "b": 1})}])
        good = streamed(body) if self._stream else ChatAnswer(body)
        place = f"{left}/{len(told)}"
        self._tries[place] += 1
        if self._tries[place] > 2:
            return good
        faults = [
            ChatAnswer(f"slow down {SECRET}", status=429, headers={"Retry-After": "0.01"}),
            ChatAnswer("<html>bad gateway</html>", status=502, headers={"Retry-After": "0.01"}),
            ChatAnswer("<html>welcome</html>"),
            ChatAnswer(good.body, headers=good.headers, drop=True),
            ChatAnswer(drop=True),
            ChatAnswer('{"choices": [{"mess'),
            ChatAnswer(hang=True),
        ]
        return faults[len(self._tries) % len(faults)]


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PluginManager:
    (tmp_path / "sums_tools.py").write_text(SUMS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sums_tools", raising=False)
    return create_plugin_manager([*installed_plugins(), PluginSource("sums", "hermes-tools-sums", "1", "sums_tools")])


def texts(folder: Path) -> str:
    return "".join(path.read_text() for path in folder.rglob("*") if path.is_file())


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_run_on_a_flaky_endpoint(
    stream: bool, plugins: PluginManager, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    config = {"base_url": "", "api_key": SECRET, "timeout_s": 2, "stream": stream, "debug_dir": str(tmp_path / "dumps")}
    with FakeChatServer(Flaky(stream=stream), key=SECRET) as server:
        async with Hermes(backend=None, toolsets=[], plugins=plugins, settings=load_settings()) as hermes:
            run = await hermes.run(
                SumsEnvironment(),
                model="openai:fake-model",
                tasks=4,
                group_size=2,
                model_config={**config, "base_url": server.url, "max_retries": 2},
                out=out,
            )
        rewards = [(t.task_id, t.outcome, t.reward) async for t in run.trajectories()]
        failed = [(t.task_id, t.outcome, t.reward) async for t in run.failures()]
    assert sorted(rewards) == [(f"train-0-{n}", "completed", 1.0) for n in (0, 0, 1, 1, 3, 3)]
    assert failed == [("train-0-2", "model_error", None)] * 2
    assert run.statistics.outcomes == {"completed": 6, "model_error": 2}
    assert run.statistics.mean_reward == 1.0
    assert "out of order, ***" in (out / "failures.jsonl").read_text()
    captured = capfd.readouterr()
    for written in (texts(out), texts(tmp_path / "dumps"), captured.out, captured.err):
        assert SECRET not in written
    assert len(list((tmp_path / "dumps").iterdir())) == len(server.requests)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 404])
async def test_a_wrong_setting_ends_the_run_and_scores_nothing(
    status: int, plugins: PluginManager, tmp_path: Path
) -> None:
    environment = SumsEnvironment()
    with FakeChatServer([ChatAnswer("wrong", status=status)]) as server:
        async with Hermes(backend=None, toolsets=[], plugins=plugins) as hermes:
            with pytest.raises(ConfigError, match="wrong"):
                await hermes.run(
                    environment, model="openai", tasks=8, model_config={"base_url": server.url}, out=tmp_path / "out"
                )
    assert environment.scored == []
    assert (tmp_path / "out" / "trajectories.jsonl").read_bytes() == b""


@pytest.mark.namespaces
def test_the_command_line_shows_the_key_nowhere(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OPENAI_API_KEY={SECRET}\n")
    command = [sys.executable, "-c", "from hermes_core.cli import main; main()", "run", "arithmetic"]
    answers: list[ChatAnswer | Mapping[str, Any]] = [
        ChatAnswer(f"no {SECRET}", status=503, headers={"Retry-After": "0"}),
        completion("1"),
    ]
    with FakeChatServer(answers, key=SECRET) as server:
        options = ["--model", "openai:fake-model", "--base-url", server.url, "--tasks", "2", "--debug-model", "dumps"]
        done = subprocess.run(
            [*command, *options, "--out", "out"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 3
    assert len(list((tmp_path / "dumps").iterdir())) == 3
    assert SECRET not in texts(tmp_path / "out") + texts(tmp_path / "dumps") + done.stdout + done.stderr
    with FakeChatServer(key="another") as server:
        options = ["--model", "openai:fake-model", "--base-url", server.url, "--tasks", "2"]
        done = subprocess.run(
            [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 2
    assert "refuses the key" in done.stderr
    assert "hint: " in done.stderr
    assert SECRET not in done.stdout + done.stderr

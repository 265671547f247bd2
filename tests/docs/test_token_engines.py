"""The guide on exact tokens: its commands are understood, its Python reads what they write, its error is ours."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hermes_core.default_plugins.models.engines._vllm import _Engine
from hermes_core.testing import FakeTokenServer, ToyTokenizer, token_completion

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "sample-exact-tokens.md").read_text()


@pytest.mark.namespaces
def test_the_command_and_the_reader_work(tmp_path: Path) -> None:
    [line] = re.findall(r"^\$ hermes (run .*)$", GUIDE, re.MULTILINE)
    [code] = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    ids = ToyTokenizer().ids("I do not know.<|im_end|>")
    answer = token_completion("llamacpp", ids, [-0.5] * len(ids), text="I do not know.")
    with FakeTokenServer("llamacpp", [answer], context=65_536) as server:
        # The same line for the engine that needs no folder.
        arguments = shlex.split(line.replace("vllm:http://127.0.0.1:8000 -M tokenizer=models/qwen3", server.url))
        arguments[arguments.index(server.url)] = f"llamacpp:{server.url}"
        budgets = [option for pair in re.findall(r"`(-[LSM]) (\w+=\d+)`", GUIDE) for option in pair]
        assert len(budgets) == 6
        done = subprocess.run(
            [sys.executable, "-c", "from hermes_core.cli import main; main()", *arguments, *budgets, "--out", "out"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert [server.requests[0]["temperature"], server.requests[0]["n_predict"]] == [1, 512]
    read = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    rows = [row.split() for row in read.stdout.splitlines()]
    assert len(rows) == 64 * 8
    assert {row[-1] for row in rows} == {str(len(ids))}


def test_the_error_is_the_one_that_comes() -> None:
    assert f"error: vLLM returned no sampled token ids\nhint: {_Engine.setting}\n" in GUIDE

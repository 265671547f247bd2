"""The tutorials are followed from their first line to their last."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hermes_core.exceptions import HermesError
from hermes_model_llamacpp._catalog import find_model, models_folder
from hermes_model_llamacpp._pull import pull_model

FIRST_RUN = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "first-run.md"
BLOCK = re.compile(r"^```(console|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HERMES = (sys.executable, "-W", "error", "-c", "from hermes_core.cli import main; main()")


def steps(document: Path) -> list[tuple[list[str], str]]:
    """What a tutorial has people run, in order, and what it shows of the output."""
    found: list[tuple[list[str], str]] = []
    for language, text in BLOCK.findall(document.read_text()):
        if language == "console":
            for command in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                line, _, shown = command.partition("\n")
                program, *arguments = shlex.split(line)
                assert program == "hermes"
                found.append(([*HERMES, *arguments], shown))
        elif language == "python":
            found.append(([sys.executable, "-W", "error", "-c", text], ""))
        else:
            command, shown = found[-1]
            assert not shown
            found[-1] = (command, text)
    return found


def assert_shown(shown: str, said: str) -> None:
    """Every line that is shown was said, in that order; `…` stands for anything."""
    lines = iter(said.splitlines())
    for line in shown.splitlines():
        wanted = re.compile(re.escape(line.rstrip()).replace("…", ".*"))
        assert any(wanted.fullmatch(other.rstrip()) for other in lines), (line, said)


@pytest.mark.local_model
@pytest.mark.namespaces
def test_the_first_run_goes_as_it_is_told(tmp_path: Path) -> None:
    try:
        pull_model(find_model("smollm2"), lambda _: None, lambda: None)
    except HermesError as error:
        if "llamacpp" in os.environ.get("HERMES_REQUIRE_ENGINES", ""):
            raise
        pytest.skip(f"cannot run: no local model: {error} ({error.hint})")
    settings = {"COLUMNS": "250", "HOME": str(tmp_path), "HERMES_CACHE": str(models_folder().parent)}
    followed = steps(FIRST_RUN)
    for command, shown in followed:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **settings}, check=False
        )
        assert done.returncode == 0, (command[-1], done.stderr)
        assert_shown(shown, done.stdout)
        if not shown:
            assert done.stdout == ""
    assert len(followed) == 9

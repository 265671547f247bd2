"""What the documents tell people to do is done here."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hermes_core.testing.contract import ALL_LEVELS, contract_checks

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("packages/*/README.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")

pytestmark = pytest.mark.namespaces


def blocks(document: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(document.read_text()) if name == language]


def run_hermes(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from hermes_core.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "250", "HOME": str(cwd), **env},
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_readmes_python_runs(tmp_path: Path) -> None:
    [code] = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 hi\n")
    assert done.stdout.endswith("1.0\n")


@pytest.mark.parametrize(
    ("document", "said"), [("work-in-terminals", "True\nTrue\n"), ("score-what-an-agent-left", "True\n")]
)
def test_how_to_guides_run(tmp_path: Path, document: str, said: str) -> None:
    [code] = blocks(ROOT / "docs" / "how-to" / f"{document}.md", "python")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout) == (0, said), done.stderr


def test_the_readmes_commands_are_understood(tmp_path: Path) -> None:
    lines = [line[2:] for text in blocks(ROOT / "README.md", "console") for line in text.splitlines()]
    commands = [shlex.split(part) for line in lines for part in line.split(";") if part.strip().startswith("hermes ")]
    assert any(command[1] == "run" for command in commands)
    for command in commands:
        if "--base-url" in command:
            continue  # needs a server
        done = run_hermes(*command[1:], cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The plugin of the how-to, written by hand outside the repository and installed with pip."""
    document = ROOT / "docs" / "how-to" / "write-a-tool-plugin.md"
    folder = tmp_path / "hermes-tools-dice"
    folder.mkdir()
    [project] = blocks(document, "toml")
    [module] = blocks(document, "python")
    [readme] = blocks(document, "markdown")
    for name, text in (("pyproject.toml", project), ("hermes_tools_dice.py", module), ("README.md", readme)):
        (folder / name).write_text(text)
    site = tmp_path / "site"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--root-user-action=ignore"),
            *("--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(folder)),
        ],
        check=True,
        capture_output=True,
    )
    return site


def test_a_plugin_of_three_files_shows_up_in_the_listings_and_in_a_run(plugin: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(plugin)}
    tools = {row["name"]: row for row in json.loads(run_hermes("tools", "--json", cwd=tmp_path, **env).stdout)}
    assert tools["roll"]["distribution"] == "hermes-tools-dice"
    assert tools["roll"]["runs"] == "in the sandbox"
    turns = [{"tool_calls": [{"name": "roll", "arguments": {"sides": 1}}]}, {"content": "Answer: 1"}]
    done = run_hermes(
        *("run", "arithmetic", "-E", "toolsets=[terminal, dice]", "--model", "scripted"),
        *("-M", f"turns={json.dumps(turns)}", "--tasks", "2", "--out", "out"),
        cwd=tmp_path,
        **env,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["outcome"] == "completed"
        assert json.loads(row["messages"][2]["content"])["output"] == "1"
    assert json.loads((tmp_path / "out" / "run.json").read_text())["versions"]["hermes-tools-dice"] == "1.0"


def test_the_broken_one_is_marked_and_harms_no_other(plugin: Path, tmp_path: Path) -> None:
    (plugin / "hermes_tools_dice.py").write_text("raise RuntimeError('not today')\n")
    env = {"PYTHONPATH": str(plugin)}
    listed = run_hermes("plugins", "--json", cwd=tmp_path, **env)
    assert listed.returncode == 0
    states = {row["distribution"]: row for row in json.loads(listed.stdout)}
    assert states["hermes-tools-dice"]["state"] == "failed"
    assert "not today" in states["hermes-tools-dice"]["error"]
    assert states["hermes-core"]["state"] == "ok"
    arguments = ("run", "arithmetic", "--model", "oracle", "--tasks", "1")
    asked = run_hermes(*arguments, "-E", "toolsets=[dice]", cwd=tmp_path, **env)
    assert asked.returncode == 2
    assert "unknown toolset 'dice'" in asked.stderr
    assert "not today" in asked.stderr
    fine = run_hermes(*arguments, "--out", "out", cwd=tmp_path, **env)
    assert fine.returncode == 0, fine.stderr


def test_the_contract_suite_runs_as_the_how_to_says(tmp_path: Path) -> None:
    conftest, module = blocks(ROOT / "docs" / "how-to" / "test-a-backend.md", "python")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_contract.py").write_text(module)
    # A part of it: tests/hermes_core runs all of it for the local backend.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rs",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-k",
        "streams or dead-slots",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed, 4 skipped" in done.stdout
    assert "cannot be seen without kill_slots (open_rig was not given it)" in done.stdout


def test_the_promises_of_each_level_are_those_that_the_contract_suite_checks() -> None:
    row = re.compile(r"^\| `([a-z0-9-]+)` \| (.+?) \|(.*?)\|(.*?)\|(.*?)\|$", re.MULTILINE)
    told = []
    for name, promise, *marks in row.findall((ROOT / "docs" / "explanation" / "isolation.md").read_text()):
        levels = tuple(level for level, mark in zip(ALL_LEVELS, marks, strict=True) if mark.strip() == "✓")
        told.append((name, promise, levels))
    assert told == [(check.id, check.promise, check.levels) for check in contract_checks()]
    assert len({name for name, *_ in told}) == len(told)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_run(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout

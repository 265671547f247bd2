"""The command line on Apptainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.apptainer


def hermes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from hermes_core.cli import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "COLUMNS": "200"},
        check=False,
    )


@pytest.fixture
def folder(scratch: Path) -> Path:
    return scratch


def test_a_run_of_many_trajectories_loses_none(folder: Path, image: str) -> None:
    size = ("--tasks", "64", "--group-size", "4", "--concurrency", "32")
    command = ("run", "arithmetic", "--backend", "singularity", "-B", f"image={image}", "--model", "oracle", *size)
    done = hermes(folder, *command, "--out", "out")
    assert done.returncode == 0, done.stderr
    statistics = json.loads((folder / "out/statistics.json").read_text())
    assert (statistics["trajectories"], statistics["failures"], statistics["mean_reward"]) == (256, 0, 1.0)
    lines = [json.loads(line) for line in (folder / "out/trajectories.jsonl").read_text().splitlines()]
    assert len({(line["task_id"], line["sample_index"]) for line in lines}) == 256
    assert {line["backend"] for line in lines} == {"singularity"}
    assert not list(folder.glob("hermes-singularity-*/runs/*"))


def test_a_run_without_an_image_says_what_to_give(folder: Path) -> None:
    done = hermes(
        folder, "run", "arithmetic", "--backend", "singularity", "--model", "oracle", "--tasks", "2", "--out", "out"
    )
    assert done.returncode == 2
    assert "needs an image" in done.stderr
    assert "-B image=" in done.stderr
    assert "Traceback" not in done.stderr


def test_sandboxes_by_hand(folder: Path, root_folder: str) -> None:
    backend = ("--backend", "singularity", "-B", f"image={root_folder}")
    done = hermes(folder, "sandbox", "exec", *backend, "--", "cat", "/etc/os-release")
    assert done.returncode == 0, done.stderr
    assert "bookworm" in done.stdout or "Debian" in done.stdout
    assert hermes(folder, "sandbox", "list", "--backend", "singularity", "--json").stdout.strip() == "[]"
    assert hermes(folder, "sandbox", "cleanup", "--backend", "singularity").returncode == 0


def test_the_backend_is_listed(folder: Path) -> None:
    assert "singularity" in hermes(folder, "backends").stdout

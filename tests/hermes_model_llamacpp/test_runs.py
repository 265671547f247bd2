"""Whole runs with a real model, as a user starts them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hermes_core import Hermes
from hermes_core.agent import AgentLimits
from hermes_core.models import Sampling
from hermes_model_llamacpp import LlamaServer

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_core import Trajectory

pytestmark = [pytest.mark.anyio, pytest.mark.local_model, pytest.mark.namespaces]


def test_every_trajectory_of_the_local_model_is_scored_with_its_tokens(weights: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from hermes_core.cli import main; main()",
        "run",
        "arithmetic",
        "--model",
        "local",
    ]
    options = ["-M", f"path={weights}", "--tasks", "2", "--group-size", "2", "--out", "out"]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "trajectories.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert row["reward"] is not None
        assert row["outcome"] in ("completed", "max_steps", "context_exceeded")
        assert row["metrics"]["tool_calls"] >= 1
        for segment in row["segments"]:
            ids, mask, logprobs = segment["ids"], segment["mask"], segment["logprobs"]
            assert len(ids) == len(mask) == len(logprobs)
            assert sum(mask) > 0
            assert all(math.isfinite(p) and p <= 0 for p, sampled in zip(logprobs, mask, strict=True) if sampled)
            assert all(p == 0.0 for p, sampled in zip(logprobs, mask, strict=True) if not sampled)


# A model of this size seldom writes the tags by itself: every turn is made to be one call, as text.
ONE_CALL = (
    'root ::= "<tool_call>\\n{\\"name\\": \\"terminal\\", \\"arguments\\": {\\"command\\": \\"" [a-z0-9 +*/]{1,20} '
    '"\\"}}\\n</tool_call>"'
)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the interface itself is tested under both
@pytest.mark.parametrize(("form", "extra_body"), [("structured", {}), ("hermes", {"grammar": ONE_CALL})])
async def test_the_openai_interface_calls_tools(weights: Path, form: str, extra_body: dict[str, str]) -> None:
    async with LlamaServer(weights, context=4096, parallel=2) as server, Hermes() as hermes:
        trajectories: list[Trajectory] = [
            trajectory
            async for trajectory in hermes.stream(
                "arithmetic",
                model="openai",
                model_config={
                    "base_url": server.base_url,
                    "api_key": server.api_key,
                    "tool_call_format": form,
                    "extra_body": extra_body,
                },
                environment_config={"steps": 1},
                tasks=2,
                limits=AgentLimits(max_steps=2),
                sampling=Sampling(temperature=0.0, max_tokens=96),
            )
        ]
    assert [trajectory.reward is not None for trajectory in trajectories] == [True, True]
    assert all(trajectory.model.startswith("openai:") for trajectory in trajectories)
    results = [result for trajectory in trajectories for step in trajectory.steps for result in step.results]
    assert results
    assert any(result.success for result in results)

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hermes_core import Hermes, SandboxRequest, ToolCall
from hermes_core.terminals import AsciicastDecoder
from hermes_core.testing import SumsEnvironment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.namespaces]

TURNS = [
    {"tool_calls": [{"name": "tmux", "arguments": {"action": "start"}}]},
    {
        "tool_calls": [
            {
                "name": "tmux",
                "arguments": {"action": "send_keys", "keys": ["echo $((6 * 7)); ls", "Enter"], "block": True},
            },
            {"name": "tmux", "arguments": {"action": "capture"}},
        ]
    },
    "1",
]


class InTerminals(SumsEnvironment):
    """Sums that are done in a terminal."""

    toolsets = ("terminal_stateful",)
    sandbox = SandboxRequest()


async def test_terminals_of_a_run_are_recorded_in_its_folder(tmp_path: Path) -> None:
    async with Hermes() as hermes:
        run = await hermes.run(
            InTerminals(),
            model="scripted",
            model_config={"turns": TURNS},
            tasks=2,
            toolsets=["terminal_stateful"],
            out=tmp_path / "out",
        )
        trajectories = [trajectory async for trajectory in run.trajectories()]
    assert [trajectory.outcome for trajectory in trajectories] == ["completed", "completed"]
    recordings = {path.name: path for path in (tmp_path / "out" / "recordings").iterdir()}
    assert len(recordings) == 2
    for trajectory in trajectories:
        name = str(trajectory.details["trajectory_id"]).replace("/", "-")
        decoder = AsciicastDecoder()
        decoder.feed(recordings[f"{name}-1.cast"].read_bytes())
        captured = trajectory.steps[1].results[1].output
        assert isinstance(captured, dict)
        assert decoder.render() == captured["screen"]
        assert "\n42\n" in decoder.render()
        assert "recordings" not in decoder.render()  # the listing of the workspace: nothing of it is in there


async def test_outside_of_runs_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Hermes(toolsets=["terminal_stateful"]) as hermes, hermes.lease() as slot:
        assert (await slot.call(ToolCall("tmux", {"action": "start"}))).success
        streamed = await slot.call(ToolCall("tmux", {"action": "stream"}))
        assert isinstance(streamed.output, dict)
        assert str(streamed.output["data"]).startswith('{"version": 2')
    assert os.listdir(tmp_path) == []

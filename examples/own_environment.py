"""An environment of your own, given as an instance: no plugin needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from pydantic import BaseModel, ConfigDict

from hermes_core import AssistantTurn, Environment, Hermes, Score, Task, ToolCall

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hermes_core import Slot, Trajectory
    from hermes_core.environments import Split


class CountConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    files: int = 3
    """How many files there are to count."""


class CountFiles(Environment):
    """The agent counts the files that set-up put into its slot, and writes the number down."""

    Config = CountConfig
    name = "count-files"
    toolsets = ("terminal",)

    def __init__(self, config: CountConfig | None = None) -> None:
        self._config = config or CountConfig()

    @property
    def config(self) -> CountConfig:
        return self._config

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        for index in range(4):
            yield Task(f"{split}-{seed}-{index}", "How many files are in data/? Write the number to answer.txt.")

    async def setup(self, task: Task, slot: Slot | None) -> int:
        assert slot is not None
        for number in range(self._config.files):
            await slot.write_file(f"data/{number}.txt", "x")
        return self._config.files

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        if slot is None:
            return Score(0.0)
        answer = await slot.exec(["cat", "answer.txt"])
        return Score(float(answer.stdout.strip() == str(setup)))

    def solution(self, task: Task) -> tuple[AssistantTurn, ...]:
        command = ToolCall("terminal", {"command": "ls data | wc -l > answer.txt"})
        return (AssistantTurn("", tool_calls=(command,)), AssistantTurn("Done."))


async def main() -> None:
    async with Hermes(backend="local") as hermes:
        async for trajectory in hermes.stream(CountFiles(), model="oracle", group_size=2):
            print(trajectory.task_id, trajectory.sample_index, trajectory.outcome, trajectory.reward)


anyio.run(main)

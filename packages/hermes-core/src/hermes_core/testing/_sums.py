"""A small environment without a sandbox: sums, which an agent does with a tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
from pydantic import BaseModel, ConfigDict

from hermes_core.environments import Environment, SandboxRequest, Score, Task
from hermes_core.execution import ToolCall
from hermes_core.models import AssistantTurn
from hermes_core.tools import tool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from hermes_core.environments import Split
    from hermes_core.execution import Slot, Tool
    from hermes_core.trajectory import Trajectory

__all__ = ["SumsConfig", "SumsEnvironment", "sums_tools"]


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
async def nap(seconds: float) -> str:
    """Sleep for so many seconds."""
    await anyio.sleep(seconds)
    return "slept"


_TOOLSETS: dict[str, tuple[Tool, ...]] = {"sums": (add,), "naps": (nap,), "both": (add, nap)}


def sums_tools(toolsets: Sequence[str]) -> Mapping[str, Tool]:
    """The tools of the toolsets `sums`, `naps` and `both`."""
    return {each.definition.name: each for name in toolsets for each in _TOOLSETS[name]}


class SumsConfig(BaseModel):
    """Which sums."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int | None = None
    """How many tasks there are; None for no end."""

    nap_s: float = 0.0
    """The solution sleeps so many seconds before it adds."""


class SumsEnvironment(Environment):
    """Asks for n + 1; the reward is 1.0 for a final response that is the sum.

    For tests of what works on environments: models, observers, exporters, trainers. It remembers what it was asked.
    """

    Config = SumsConfig
    name = "sums"
    toolsets = ("both",)
    system_prompt = "You add."
    sandbox: SandboxRequest | None = None

    def __init__(self, config: SumsConfig | None = None) -> None:
        self._config = config or SumsConfig()
        self.scored: list[tuple[Slot | None, Trajectory]] = []
        """What was scored, last things last."""
        self.pulled = 0
        """How many tasks were taken."""

    @property
    def config(self) -> SumsConfig:
        """Its settings."""
        return self._config

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        """Sums in order."""
        index = 0
        while self._config.count is None or index < self._config.count:
            self.pulled += 1
            yield Task(f"{split}-{seed}-{index}", f"{index}+1?", data={"sum": index + 1}, sandbox=self.sandbox)
            index += 1

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        """1.0 for the sum and nothing else."""
        self.scored.append((slot, trajectory))
        return Score(float(trajectory.final_response == str(task.data["sum"])), {"length": 1.0}, {"setup": str(setup)})

    def solution(self, task: Task) -> tuple[AssistantTurn, ...]:
        """Add with the tool."""
        total = task.data["sum"]
        naps = (ToolCall("nap", {"seconds": self._config.nap_s}),) if self._config.nap_s else ()
        call = ToolCall("add", {"a": int(str(total)) - 1, "b": 1})
        return (AssistantTurn("", tool_calls=(*naps, call)), AssistantTurn(str(total)))

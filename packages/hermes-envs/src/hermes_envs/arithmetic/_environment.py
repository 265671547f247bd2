"""The environment `arithmetic`."""

from __future__ import annotations

import hashlib
import random
import re
from typing import TYPE_CHECKING

from hermes_core.environments import Environment, Score, Task
from hermes_core.execution import ToolCall
from hermes_core.models import AssistantTurn
from hermes_envs.arithmetic._config import ArithmeticConfig
from hermes_envs.arithmetic._problem import make_problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from hermes_core.environments import Split
    from hermes_core.execution import Slot, ToolResult
    from hermes_core.trajectory import Trajectory

__all__ = ["ArithmeticEnvironment"]

# A whole integer: bounded, because int() refuses thousands of digits, and not the head of a decimal fraction.
_ANSWER = re.compile(r"answer\s*(?:is|:)\s*\$?\s*(-?\d[\d,]{0,40})(?![\d,]*\.?\d)", re.IGNORECASE)
_INSTRUCTIONS = "Solve the problem by running code with the terminal tool. Then say the result as: Answer: <number>"
EVAL_SHARE = 10
"""One problem of so many belongs to the eval split, decided by its text: the splits share none, whatever the seed."""


class ArithmeticEnvironment(Environment):
    """Word problems that are solved by running code in the terminal; 1.0 for the exact number, else 0.0."""

    Config = ArithmeticConfig
    name = "arithmetic"
    endless = True

    def __init__(self, config: ArithmeticConfig | None = None) -> None:
        self._config = config or ArithmeticConfig()
        self.toolsets = self._config.toolsets

    @property
    def config(self) -> ArithmeticConfig:
        """Its settings."""
        return self._config

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        """Problems without end; task k depends on the configuration, the split, the seed and k alone."""
        rng = random.Random(f"arithmetic/{split}/{seed}")
        index = 0
        while True:
            problem = make_problem(rng, steps=self._config.steps, max_number=self._config.max_number)
            if _split_of(problem.text) != split:
                continue
            yield Task(
                task_id=f"arithmetic-{split}-{seed}-{index:06d}",
                prompt=f"{problem.text}\n\n{_INSTRUCTIONS}",
                data={"expression": problem.expression, "answer": problem.answer},
            )
            index += 1

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        """1.0 for the exact number in the last "Answer: N" of the final response."""
        said = _ANSWER.findall(trajectory.final_response)
        correct = bool(said) and int(said[-1].replace(",", "")) == task.data["answer"]
        ran_code = any(_exited_well(result) for step in trajectory.steps for result in step.results)
        counted = correct and (ran_code or not self._config.require_terminal)
        return Score(
            reward=float(counted),
            metrics={"correct": float(correct), "answered": float(bool(said)), "ran_code": float(ran_code)},
        )

    def solution(self, task: Task) -> tuple[AssistantTurn, ...]:
        """Evaluate the expression in the shell, then say its value."""
        command = f"echo $(( {task.data['expression']} ))"
        return (
            AssistantTurn("", tool_calls=(ToolCall("terminal", {"command": command}),), finish_reason="tool_calls"),
            AssistantTurn(f"Answer: {task.data['answer']}", finish_reason="stop"),
        )


def _exited_well(result: ToolResult) -> bool:
    return result.success and isinstance(result.output, dict) and result.output.get("exit_code") == 0


def _split_of(text: str) -> Split:
    digest = hashlib.sha256(text.encode()).digest()
    return "eval" if digest[0] % EVAL_SHARE == 0 else "train"

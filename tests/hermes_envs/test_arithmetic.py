from __future__ import annotations

import random
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_core.execution import ToolResult
from hermes_core.models import Message
from hermes_core.trajectory import Step, Trajectory
from hermes_envs.arithmetic import ArithmeticConfig, ArithmeticEnvironment
from hermes_envs.arithmetic._problem import make_problem

if TYPE_CHECKING:
    from hermes_core.environments import Split, Task

pytestmark = pytest.mark.anyio


async def first_tasks(
    split: Split, seed: int, count: int, environment: ArithmeticEnvironment | None = None
) -> list[Task]:
    tasks: list[Task] = []
    async with aclosing((environment or ArithmeticEnvironment()).tasks(split, seed)) as endless:
        async for task in endless:
            tasks.append(task)
            if len(tasks) == count:
                break
    return tasks


def trajectory(answer: str, *, ran: bool = True) -> Trajectory:
    message = Message("assistant", answer)
    results = (ToolResult("c", success=True, output={"exit_code": 0}),) if ran else ()
    return Trajectory("t", 0, "completed", None, {}, (message,), (Step(message, results),), (), "m", "local", 0.0, 0.0)


@given(st.integers(), st.integers(1, 6), st.integers(10, 10_000))
def test_a_problems_expression_has_its_value(seed: int, steps: int, max_number: int) -> None:
    problem = make_problem(random.Random(seed), steps=steps, max_number=max_number)
    assert eval(problem.expression.replace("/", "//")) == problem.answer
    assert problem.answer >= 0
    assert all(int(n) <= max_number for n in problem.text.replace(".", "").split() if n.isdigit())


async def test_the_same_seed_gives_the_same_tasks() -> None:
    assert await first_tasks("train", 7, 50) == await first_tasks("train", 7, 50)
    assert await first_tasks("train", 7, 5) != await first_tasks("train", 8, 5)


async def test_task_ids_are_unique() -> None:
    ids = {task.task_id for task in await first_tasks("train", 0, 500)}
    assert len(ids) == 500


async def test_the_splits_share_no_problem() -> None:
    small = ArithmeticEnvironment(ArithmeticConfig(steps=1, max_number=10))
    train = {task.prompt for task in await first_tasks("train", 0, 400, small)}
    held_out = {task.prompt for task in await first_tasks("eval", 1, 40, small)}
    assert not train & held_out


@pytest.mark.parametrize("form", ["Answer: {}", "So the answer is {}", "first Answer: 1, no: Answer: {}."])
async def test_the_exact_number_is_rewarded(form: str) -> None:
    [task] = await first_tasks("train", 0, 1)
    said = form.format(task.data["answer"])
    score = await ArithmeticEnvironment().score(task, None, trajectory(said), None)
    assert score.reward == 1.0


@pytest.mark.parametrize(
    "said", ["Answer: -1", "no idea", "", "Answer: many", "Answer: {}.5", "Answer: {}0", "Answer: " + "9" * 5000]
)
async def test_anything_else_is_not(said: str) -> None:
    [task] = await first_tasks("train", 0, 1)
    said = said.format(task.data["answer"])
    assert (await ArithmeticEnvironment().score(task, None, trajectory(said), None)).reward == 0.0


async def test_a_right_answer_without_a_tool_call_counts_only_if_allowed() -> None:
    [task] = await first_tasks("train", 0, 1)
    guessed = trajectory(f"Answer: {task.data['answer']}", ran=False)
    assert (await ArithmeticEnvironment().score(task, None, guessed, None)).reward == 0.0
    lenient = ArithmeticEnvironment(ArithmeticConfig(require_terminal=False))
    assert (await lenient.score(task, None, guessed, None)).reward == 1.0

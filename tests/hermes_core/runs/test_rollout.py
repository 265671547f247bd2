from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from hermes_core.agent import AgentLimits
from hermes_core.default_plugins.models import OracleModel, ScriptedModel
from hermes_core.default_plugins.models.scripted import ScriptedCall, ScriptedConfig, ScriptedTurn
from hermes_core.environments import Environment, SandboxRequest, Score, Task
from hermes_core.exceptions import ConfigError, SandboxLostError, SlotDeadError, UsageError
from hermes_core.execution import Slot
from hermes_core.models import AssistantTurn, ConversationStart, Message, Sampling
from hermes_core.observers import Observer, ObserverHub
from hermes_core.runs import Resources, RolloutOptions, rollout_options, rollout_with_retries
from hermes_core.testing import SumsConfig, SumsEnvironment
from hermes_core.tools import tool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from hermes_core.environments import Split
    from hermes_core.models import Conversation
    from hermes_core.observers import TrajectoryFinished, TrajectoryStarted
    from hermes_core.slots import LeaseRequest
    from hermes_core.trajectory import Trajectory

pytestmark = pytest.mark.anyio

TASK = Task("t0", "0+1?", data={"sum": 1}, sandbox=None)
QUICK = RolloutOptions(retry_delay_s=0.0)
ASKS_FOR_SLOT = Task("t0", "?", sandbox=SandboxRequest(network="host"))


class Leases:
    """Stands in for a pool: hands out slots that nothing can be done with, and counts them."""

    class EmptySlot(Slot):
        def __init__(self, leases: Leases) -> None:
            self._leases = leases

        @property
        def isolation(self) -> str:
            return "namespaces"

        async def release(self) -> None:
            self._leases.held.discard(self)

    def __init__(self, *faults: Exception) -> None:
        self.faults = list(faults)
        self.requests: list[LeaseRequest] = []
        self.held: set[Slot] = set()

    async def acquire(self, request: LeaseRequest) -> Slot:
        self.requests.append(request)
        assert not self.held, "a second slot is asked for while one is held"
        if self.faults:
            raise self.faults.pop(0)
        slot = self.EmptySlot(self)
        self.held.add(slot)
        return slot


class Judging(Environment):
    """Scores by a function."""

    Config = SumsConfig
    name = "judging"

    def __init__(
        self, judge: Callable[[Slot | None, Trajectory], Score], prepare: Callable[[Slot | None], object] = str
    ) -> None:
        self._judge = judge
        self._prepare = prepare

    @property
    def config(self) -> SumsConfig:
        return SumsConfig()

    async def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        yield ASKS_FOR_SLOT

    async def setup(self, task: Task, slot: Slot | None) -> object:
        return self._prepare(slot)

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        return self._judge(slot, trajectory)


def script(*turns: ScriptedTurn | str) -> ScriptedModel:
    return ScriptedModel(ScriptedConfig(turns=turns))


async def test_a_solved_task(resources: Resources, sums: SumsEnvironment) -> None:
    trajectory = await rollout_with_retries(resources, sums, TASK, OracleModel(), sample_index=3)
    assert (trajectory.outcome, trajectory.reward, trajectory.sample_index) == ("completed", 1.0, 3)
    assert [m.role for m in trajectory.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert trajectory.metrics["tool_calls"] == 1
    assert trajectory.metrics["length"] == 1.0
    assert trajectory.metrics["infrastructure_faults"] == 0
    assert trajectory.details["setup"] == "None"
    assert trajectory.backend is None
    assert trajectory.model == "oracle"
    ((slot, seen),) = sums.scored
    assert slot is None
    assert seen.reward is None


async def test_a_task_may_bring_its_own_messages(resources: Resources, sums: SumsEnvironment) -> None:
    opening = (Message("user", "a"), Message("assistant", "b"), Message("user", "0+1?"))
    trajectory = await rollout_with_retries(resources, sums, replace(TASK, messages=opening), OracleModel())
    assert trajectory.messages[:3] == opening


@pytest.mark.parametrize(
    ("model", "limits", "outcome"),
    [
        (script(ScriptedTurn(tool_calls=(ScriptedCall(name="add"),))), AgentLimits(max_steps=1), "max_steps"),
        (script(ScriptedTurn(fails="context_exceeded")), None, "context_exceeded"),
    ],
)
async def test_every_end_of_the_agents_own_is_scored(
    resources: Resources, sums: SumsEnvironment, model: ScriptedModel, limits: AgentLimits | None, outcome: str
) -> None:
    trajectory = await rollout_with_retries(resources, sums, TASK, model, options=RolloutOptions(limits=limits))
    assert (trajectory.outcome, trajectory.reward) == (outcome, 0.0)


class Flaky(OracleModel):
    """Fails so many times, then plays the solution."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def conversation(self, start: ConversationStart) -> Conversation:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("hiccup")
        return super().conversation(start)


async def test_infrastructure_is_tried_again_and_told(resources: Resources, sums: SumsEnvironment) -> None:
    trajectory = await rollout_with_retries(resources, sums, TASK, Flaky(2), options=QUICK)
    assert (trajectory.outcome, trajectory.reward) == ("completed", 1.0)
    assert trajectory.metrics["infrastructure_faults"] == 2
    assert len(trajectory.details["faults"]) == 2  # type: ignore[arg-type]


async def test_a_spent_budget_gives_no_reward(resources: Resources, sums: SumsEnvironment) -> None:
    trajectory = await rollout_with_retries(resources, sums, TASK, Flaky(3), options=QUICK)
    assert (trajectory.outcome, trajectory.reward) == ("model_error", None)
    assert "hiccup" in str(trajectory.error)
    assert not sums.scored


async def test_an_oracle_without_a_solution_is_a_model_error(resources: Resources) -> None:
    environment = Judging(lambda slot, trajectory: Score(1.0))
    trajectory = await rollout_with_retries(
        resources, environment, replace(ASKS_FOR_SLOT, sandbox=None), OracleModel(), options=QUICK
    )
    assert trajectory.outcome == "model_error"
    assert "no reference solution" in str(trajectory.error)


async def test_the_lease_is_what_the_task_asks_for_and_given_back(resources: Resources) -> None:
    leases = Leases()
    seen: list[Slot | None] = []

    def judge(slot: Slot | None, trajectory: Trajectory) -> Score:
        seen.append(slot)
        return Score(1.0)

    environment = Judging(judge)
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire, backend="fake"), environment, ASKS_FOR_SLOT, script("x"), run_id="r"
    )
    assert trajectory.reward == 1.0
    assert trajectory.backend == "fake"
    assert not leases.held
    assert isinstance(seen[0], Slot)
    (request,) = leases.requests
    assert (request.network, request.wait_s, request.trajectory_id) == ("host", None, "r/t0/0")


async def test_a_sandbox_that_comes_late_is_no_matter(resources: Resources) -> None:
    leases = Leases(SandboxLostError("gone"), SandboxLostError("gone again"))
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire),
        Judging(lambda slot, trajectory: Score(1.0)),
        ASKS_FOR_SLOT,
        script("x"),
        options=QUICK,
    )
    assert trajectory.reward == 1.0
    assert len({request.trajectory_id for request in leases.requests}) == 3


async def test_a_scorer_that_fails_on_the_agents_state_scores_zero(resources: Resources) -> None:
    def judge(slot: Slot | None, trajectory: Trajectory) -> Score:
        if trajectory.final_response:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "planted")
        return Score(0.0)

    leases = Leases()
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire), Judging(judge), ASKS_FOR_SLOT, script("x"), options=QUICK
    )
    assert (trajectory.outcome, trajectory.reward) == ("completed", 0.0)
    assert "planted" in str(trajectory.details["score_error"])
    assert len(leases.requests) == 2
    assert not leases.held


@pytest.mark.parametrize("score", [Score(math.nan), Score(1.0, {"m": math.inf}), None], ids=["nan", "inf", "none"])
async def test_a_scorer_that_always_fails_is_the_environments_fault(resources: Resources, score: Score) -> None:
    leases = Leases()
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire),
        Judging(lambda slot, trajectory: score),
        ASKS_FOR_SLOT,
        script("x"),
        options=replace(QUICK, retries=1),
    )
    assert (trajectory.outcome, trajectory.reward) == ("environment_error", None)
    assert trajectory.final_response == "x"
    assert len(leases.requests) == 4
    assert not leases.held


async def test_a_sandbox_lost_in_scoring_is_infrastructure(resources: Resources) -> None:
    def judge(slot: Slot | None, trajectory: Trajectory) -> Score:
        raise SandboxLostError("gone")

    trajectory = await rollout_with_retries(
        replace(resources, acquire=Leases().acquire), Judging(judge), ASKS_FOR_SLOT, script("x"), options=QUICK
    )
    assert (trajectory.outcome, trajectory.reward) == ("sandbox_error", None)


@pytest.mark.parametrize("fault", [ValueError("bad data"), SlotDeadError("died", limit="memory")])
async def test_setup_that_fails_is_the_environments_fault(resources: Resources, fault: Exception) -> None:
    def prepare(slot: Slot | None) -> object:
        raise fault

    leases = Leases()
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire),
        Judging(lambda slot, trajectory: Score(1.0), prepare),
        ASKS_FOR_SLOT,
        script("x"),
        options=QUICK,
    )
    assert trajectory.outcome == "environment_error"
    assert trajectory.messages == (Message("user", "?"),)
    assert not leases.held


async def test_an_agent_whose_slot_died_is_scored_by_what_is_left(resources: Resources) -> None:
    @tool
    async def burst() -> str:
        """Break a limit."""
        raise SlotDeadError("too much memory", limit="memory")

    seen: list[Slot | None] = []

    def judge(slot: Slot | None, trajectory: Trajectory) -> Score:
        seen.append(slot)
        return Score(0.25)

    environment = Judging(judge)
    leases = Leases()
    trajectory = await rollout_with_retries(
        replace(resources, acquire=leases.acquire, tools=lambda names: {"burst": burst}),
        environment,
        ASKS_FOR_SLOT,
        script(ScriptedTurn(tool_calls=(ScriptedCall(name="burst"),))),
        options=QUICK,
    )
    assert (trajectory.outcome, trajectory.reward, trajectory.details["limit"]) == ("agent_error", 0.25, "memory")
    assert [type(slot) for slot in seen] == [Leases.EmptySlot]
    assert trajectory.metrics["infrastructure_faults"] == 0


async def test_a_task_with_a_sandbox_needs_a_backend(resources: Resources) -> None:
    with pytest.raises(UsageError, match="no backend"):
        await rollout_with_retries(resources, Judging(lambda s, t: Score(1.0)), ASKS_FOR_SLOT, script("x"))


async def test_a_run_narrows_toolsets_and_never_widens_them(resources: Resources, sums: SumsEnvironment) -> None:
    seen: list[tuple[str, ...]] = []

    class Curious(OracleModel):
        def conversation(self, start: ConversationStart) -> Conversation:
            seen.append(tuple(each.name for each in start.tools))
            return super().conversation(start)

    await rollout_with_retries(resources, sums, TASK, Curious())
    await rollout_with_retries(resources, sums, TASK, Curious(), options=RolloutOptions(toolsets=("sums",)))
    await rollout_with_retries(resources, sums, replace(TASK, toolsets=("naps",)), Curious())
    assert seen == [("add", "nap"), ("add",), ("nap",)]
    with pytest.raises(UsageError, match="'sums' would give environment 'sums' tools that it does not have: add"):
        await rollout_with_retries(
            resources, sums, replace(TASK, toolsets=("naps",)), Curious(), options=RolloutOptions(toolsets=("sums",))
        )


async def test_limits_and_sampling_of_the_run_over_those_of_the_task(
    resources: Resources, sums: SumsEnvironment
) -> None:
    task = replace(TASK, limits=AgentLimits(max_steps=7), sampling=Sampling(temperature=0.3))
    own = await rollout_with_retries(resources, sums, task, OracleModel())
    assert own.details["limits"]["max_steps"] == 7  # type: ignore[call-overload,index]
    assert own.details["sampling"]["temperature"] == 0.3  # type: ignore[call-overload,index]
    options = RolloutOptions(limits=AgentLimits(max_steps=1), sampling=Sampling(temperature=0.0))
    over = await rollout_with_retries(resources, sums, task, OracleModel(), options=options)
    assert over.outcome == "max_steps"
    assert over.details["sampling"]["temperature"] == 0.0  # type: ignore[call-overload,index]
    some = rollout_options(limits={"max_tokens": 9}, sampling={"max_tokens": "5"})
    mixed = await rollout_with_retries(resources, sums, task, OracleModel(), options=some)
    assert mixed.details["limits"] == asdict(AgentLimits(max_steps=7, max_tokens=9))
    assert mixed.details["sampling"] == {**asdict(Sampling(temperature=0.3, max_tokens=5)), "stop": []}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limits": {"max_step": 1}}, "limits: unknown field 'max_step'"),
        ({"limits": {"max_tokens": 0}}, "limits: max_tokens: "),
        ({"sampling": {"temperature": -1}}, "sampling: temperature: "),
        ({"sampling": {"top_p": 0}}, "sampling: top_p: "),
    ],
)
def test_what_a_run_cannot_set(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rollout_options(**options)


async def test_a_deadline_ends_as_cancelled_with_what_was_done(resources: Resources, sums: SumsEnvironment) -> None:
    options = replace(QUICK, deadline_s=0.1, retries=0)
    call = ScriptedCall(name="add", arguments={"a": 1, "b": 1})
    model = script(ScriptedTurn(tool_calls=(call,)), ScriptedTurn(delay_s=60))
    trajectory = await rollout_with_retries(resources, sums, TASK, model, options=options)
    assert (trajectory.outcome, trajectory.reward) == ("cancelled", None)
    assert len(trajectory.steps) == 1


async def test_observers_are_told_of_every_attempt_and_one_end(resources: Resources, sums: SumsEnvironment) -> None:
    class Watching(Observer):
        def __init__(self) -> None:
            self.seen: list[object] = []

        async def trajectory_started(self, event: TrajectoryStarted) -> None:
            self.seen.append(event.attempt)

        async def trajectory_finished(self, event: TrajectoryFinished) -> None:
            self.seen.append(event.trajectory.reward)

    watching = Watching()
    async with ObserverHub([watching]) as hub:
        await rollout_with_retries(replace(resources, observers=hub), sums, TASK, Flaky(1), options=QUICK)
    assert watching.seen == [0, 1, 1.0]


async def test_a_broken_model_is_a_model_error(resources: Resources, sums: SumsEnvironment) -> None:
    class Broken(OracleModel):
        def conversation(self, start: ConversationStart) -> Conversation:
            class Talk:
                async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
                    raise ZeroDivisionError

            return Talk()

    trajectory = await rollout_with_retries(resources, sums, TASK, Broken(), options=QUICK)
    assert trajectory.outcome == "model_error"

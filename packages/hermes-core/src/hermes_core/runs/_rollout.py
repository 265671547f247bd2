"""One task, one agent, one trajectory."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from hermes_core.agent import Agent, AgentLimits, outcome_of
from hermes_core.exceptions import (
    BackendUnavailableError,
    EnvironmentFault,
    HermesError,
    ModelError,
    NoCapacityError,
    SlotDeadError,
)
from hermes_core.execution import advertised
from hermes_core.models import ConversationStart, Message, Sampling
from hermes_core.observers import TrajectoryFinished, TrajectoryStarted
from hermes_core.runs._overrides import overridden, recorded
from hermes_core.runs._resources import RolloutOptions
from hermes_core.runs._scoring import leased_slot, one_line, score_trajectory, set_up
from hermes_core.runs._toolsets import enabled_tools
from hermes_core.trajectory import AGENT_OUTCOMES, Trajectory

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.agent import AgentRun
    from hermes_core.environments import Environment, Score, Task
    from hermes_core.execution import JsonValue, Slot
    from hermes_core.models import AssistantTurn, Conversation, Model
    from hermes_core.runs._resources import Resources
    from hermes_core.trajectory import Outcome

__all__ = ["rollout_with_retries"]


async def rollout_with_retries(
    resources: Resources,
    environment: Environment,
    task: Task,
    model: Model,
    *,
    sample_index: int = 0,
    options: RolloutOptions | None = None,
    run_id: str | None = None,
) -> Trajectory:
    """Let an agent work on a task, and score what it did.

    What infrastructure spoils is tried again within `options.retries`, then reported without a reward.

    Args:
        resources: What rollouts share.
        environment: Where the task comes from.
        task: The task.
        model: The model, entered.
        sample_index: 0-based index within the task's group.
        options: What the run decides.
        run_id: Makes the trajectory's id unique beyond the run; made up when not given.

    Raises:
        UsageError: The rollout cannot be done at all (toolsets, no backend).
        BackendUnavailableError: The backend cannot start sandboxes, and no rollout with these resources has had one.
        NoCapacityError: There is no room for a sandbox, and no rollout with these resources has had one.
    """
    options = options or RolloutOptions()
    trajectory_id = f"{run_id or uuid.uuid4().hex[:8]}/{task.task_id}/{sample_index}"
    faults: list[JsonValue] = []
    for number in range(options.retries + 1):
        if number:
            await anyio.sleep(options.retry_delay_s * 2 ** (number - 1))
        resources.observers.post(TrajectoryStarted(trajectory_id, task.task_id, sample_index, number))
        # Each attempt leases under an id of its own: the slot of the last one may still be on its way back.
        own_id = f"{trajectory_id}+{number}" if number else trajectory_id
        attempt = _Attempt(resources, environment, task, model, sample_index, options, own_id)
        trajectory = await attempt.run()
        if trajectory.outcome in AGENT_OUTCOMES:
            break
        faults.append(f"{trajectory.outcome}: {trajectory.error}")
    trajectory = _with_faults(trajectory, faults)
    resources.observers.post(TrajectoryFinished(trajectory_id, trajectory))
    return trajectory


class _Attempt:
    """One attempt at a rollout; its fields are what is known of it so far."""

    def __init__(
        self,
        resources: Resources,
        environment: Environment,
        task: Task,
        model: Model,
        sample_index: int,
        options: RolloutOptions,
        trajectory_id: str,
    ) -> None:
        self._resources = resources
        self._environment = environment
        self._task = task
        self._model = model
        self._sample_index = sample_index
        self._trajectory_id = trajectory_id
        self._limits = overridden(task.limits or AgentLimits(), options.limits)
        self._sampling = overridden(task.sampling or Sampling(), options.sampling)
        self._deadline_s = options.deadline_s
        self._tools = enabled_tools(resources.tools, environment, task, options.toolsets)
        self._started_at, self._started = time.time(), time.monotonic()
        self._agent: Agent | None = None
        self._run: AgentRun | None = None
        self._score: Score | None = None
        self._error: HermesError | None = None
        self._isolation: str | None = None
        self._outcome: Outcome = "environment_error"

    async def run(self) -> Trajectory:
        """Do everything, and tell what came of it."""
        with anyio.move_on_after(self._deadline_s) as overall:
            try:
                conversation = self._converse()
                async with leased_slot(self._resources, self._task, self._trajectory_id) as slot:
                    await self._work(conversation, slot)
            except (BackendUnavailableError, NoCapacityError) as error:
                if not self._resources.leasing.worked:
                    raise  # no trajectory of the run will do better
                self._fail(outcome_of(error), error)
            except HermesError as error:
                self._fail(outcome_of(error), error)
        if overall.cancelled_caught:
            self._fail("cancelled", EnvironmentFault(f"the deadline of {self._deadline_s:g} s passed"))
        return self._trajectory()

    async def _work(self, conversation: Conversation, slot: Slot | None) -> None:
        self._isolation = None if slot is None else slot.isolation
        setup = await set_up(self._environment, self._task, slot)
        self._agent = self._make_agent(conversation, slot)
        self._run = await self._agent.run(self._task.messages or self._task.prompt)
        self._outcome, self._error = self._run.outcome, self._run.error
        if self._outcome not in AGENT_OUTCOMES:
            return
        self._score = await score_trajectory(
            self._resources, self._environment, self._task, slot, self._trajectory(), setup
        )

    def _converse(self) -> Conversation:
        start = ConversationStart(
            trajectory_id=self._trajectory_id,
            task_id=self._task.task_id,
            sample_index=self._sample_index,
            tools=advertised(self._tools),
            sampling=self._sampling,
            solution=self._solution() if self._model.plays_solutions else None,
        )
        try:
            return self._model.conversation(start)
        except HermesError:
            raise
        except Exception as error:
            raise ModelError(f"the model failed to begin: {one_line(error)}") from error

    def _solution(self) -> tuple[AssistantTurn, ...] | None:
        try:
            return self._environment.solution(self._task)
        except HermesError:
            raise
        except Exception as error:
            raise EnvironmentFault(f"solution of task {self._task.task_id!r} failed: {one_line(error)}") from error

    def _make_agent(self, conversation: Conversation, slot: Slot | None) -> Agent:
        return Agent(
            conversation,
            self._resources.executor,
            self._tools,
            slot=slot,
            limits=self._limits,
            system_prompt=None if self._task.messages else self._environment.system_prompt,
            interceptors=self._resources.interceptors,
            observers=self._resources.observers,
            trajectory_id=self._trajectory_id,
            task_id=self._task.task_id,
        )

    def _fail(self, outcome: Outcome, error: HermesError) -> None:
        self._outcome, self._error, self._score = outcome, error, None

    def _trajectory(self) -> Trajectory:
        score = self._score
        messages = self._agent.messages if self._agent else self._opening()
        details: dict[str, JsonValue] = {
            "trajectory_id": self._trajectory_id,
            "sampling": recorded(self._sampling),
            "limits": recorded(self._limits),
            "tools": [tool.name for tool in advertised(self._tools)],
        }
        if self._isolation is not None:
            details["isolation"] = self._isolation
        if isinstance(self._error, SlotDeadError) and self._error.limit:
            details["limit"] = self._error.limit
        return Trajectory(
            task_id=self._task.task_id,
            sample_index=self._sample_index,
            outcome=self._outcome,
            reward=float(score.reward) if score else None,
            metrics={**self._metrics(), **(score.metrics if score else {})},
            messages=(*messages, *(score.messages if score else ())),
            steps=self._agent.steps if self._agent else (),
            segments=self._agent.segments if self._agent else (),
            model=self._model.name,
            backend=self._resources.backend if self._task.sandbox else None,
            started_at=self._started_at,
            duration_s=time.monotonic() - self._started,
            error=one_line(self._error) if self._error else None,
            details={**details, **(score.details if score else {})},
        )

    def _opening(self) -> tuple[Message, ...]:
        return self._task.messages or (Message("user", self._task.prompt),)

    def _metrics(self) -> Mapping[str, float]:
        steps = self._agent.steps if self._agent else ()
        results = [result for step in steps for result in step.results]
        metrics: dict[str, float] = {
            "steps": len(steps),
            "tool_calls": sum(len(step.calls) for step in steps),
            "failed_tool_calls": sum(not result.success for result in results),
            "malformed_calls": sum(len(step.malformed) for step in steps),
            "tool_time_s": sum(step.tools_s for step in steps),
            "model_time_s": sum(step.model_s for step in steps),
        }
        usages = [step.usage for step in steps if step.usage]
        tokens = [step.tokens for step in steps if step.tokens]
        if tokens:
            metrics["prompt_tokens"] = sum(len(turn.prompt_ids) for turn in tokens)
            metrics["completion_tokens"] = sum(len(turn.completion_ids) for turn in tokens)
        elif usages:
            metrics["prompt_tokens"] = sum(usage.prompt_tokens for usage in usages)
            metrics["completion_tokens"] = sum(usage.completion_tokens for usage in usages)
        return metrics


def _with_faults(trajectory: Trajectory, faults: list[JsonValue]) -> Trajectory:
    metrics = {**trajectory.metrics, "infrastructure_faults": float(len(faults))}
    details = {**trajectory.details, "faults": faults} if faults else trajectory.details
    return replace(trajectory, metrics=metrics, details=details)

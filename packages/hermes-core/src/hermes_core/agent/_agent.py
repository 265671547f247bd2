"""The loop: the model speaks, its calls are run, it hears the answers, until it calls nothing more."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from hermes_core.agent._answers import THINK_ONLY_ANSWER, answer_call, answer_malformed, only_thinks
from hermes_core.agent._calls import CallRunner
from hermes_core.agent._limits import AgentLimits
from hermes_core.agent._outcomes import outcome_of
from hermes_core.agent._run import AgentRun
from hermes_core.exceptions import HermesError, ModelError
from hermes_core.models import Message
from hermes_core.trajectory import SegmentRecorder, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.agent._calls import SlotSource
    from hermes_core.execution import BatchExecutor, Tool, ToolCall, ToolResult
    from hermes_core.models import AssistantTurn, Conversation
    from hermes_core.observers import Interceptor, ObserverHub
    from hermes_core.trajectory import Outcome, Segment

__all__ = ["Agent"]


class Agent:
    """A ReAct agent: one conversation, some tools, at most one slot.

    Args:
        conversation: The model's side of this conversation.
        executor: Runs tool calls.
        tools: The enabled tools by name.
        slot: The slot of sandbox tools; or what leases one when it is first needed; or None.
        limits: When to stop; they hold for each `run` anew.
        system_prompt: Opens the conversation, unless the first messages bring their own.
        interceptors: May replace calls and results, in order.
        observers: Told of calls.
        trajectory_id: Whose calls these are; made up when not given.
        task_id: The task, or "" outside an environment.
    """

    def __init__(
        self,
        conversation: Conversation,
        executor: BatchExecutor,
        tools: Mapping[str, Tool],
        *,
        slot: SlotSource = None,
        limits: AgentLimits | None = None,
        system_prompt: str | None = None,
        interceptors: Sequence[Interceptor] = (),
        observers: ObserverHub | None = None,
        trajectory_id: str | None = None,
        task_id: str = "",
    ) -> None:
        self._conversation = conversation
        self._limits = limits or AgentLimits()
        self._system_prompt = system_prompt
        self._calls = CallRunner(
            executor,
            tools,
            slot=slot,
            interceptors=interceptors,
            observers=observers,
            trajectory_id=trajectory_id or f"agent-{uuid.uuid4().hex[:12]}",
            task_id=task_id,
        )
        self._recorder = SegmentRecorder()
        self._messages: list[Message] = []
        self._steps: list[Step] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return tuple(self._messages)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The assistant's turns so far, with their results."""
        return tuple(self._steps)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The conversation's tokens so far; empty when the engine returns none."""
        return self._recorder.segments

    async def chat(self, text: str) -> str:
        """Say something and return the final answer; the history is kept for the next time.

        Raises:
            HermesError: What ended the run before it came to an answer.
        """
        run = await self.run(text)
        if run.error is not None:
            raise run.error
        return run.final_response

    async def run(self, messages: str | Sequence[Message]) -> AgentRun:
        """Hear messages, then take steps until a final answer or a limit.

        Errors end the run as its outcome: nothing that was done before is lost.

        Raises:
            UsageError: What was asked for cannot be done at all.
        """
        self._hear([Message("user", messages)] if isinstance(messages, str) else messages)
        earlier_steps, earlier_s = len(self._steps), self._calls.spent_s
        error: HermesError | None = None
        try:
            outcome = await self._take_steps()
        except HermesError as fault:
            outcome, error = outcome_of(fault), fault
        return AgentRun(
            outcome=outcome,
            messages=self.messages,
            steps=tuple(self._steps[earlier_steps:]),
            segments=self._recorder.segments,
            tool_time_s=self._calls.spent_s - earlier_s,
            error=error,
        )

    async def step(self) -> Step:
        """Take one turn: the model speaks, its calls are run, it hears the answers.

        Raises:
            ModelError: The model failed.
            ContextExceededError: The conversation no longer fits.
            SandboxError: The slot's sandbox is lost.
            SlotDeadError: The slot died.
        """
        return await self._step(None, None)

    async def _take_steps(self) -> Outcome:
        budget_s, left = self._limits.tool_time_s, self._limits.max_tokens
        end_s = None if budget_s is None else self._calls.spent_s + budget_s
        for number in range(self._limits.max_steps):
            if number and self._limits.delay_s:
                await anyio.sleep(self._limits.delay_s)
            step = await self._step(end_s, left)
            left = None if left is None else max(0, left - step.sampled_tokens)
            cut = left == 0 and step.finish_reason == "length"
            if self._messages[-1] is step.message and not cut:
                return "completed"
            if left == 0:
                return "max_tokens"
            if end_s is not None and self._calls.spent_s >= end_s:
                return "timed_out"
        return "max_steps"

    async def _step(self, end_s: float | None, max_tokens: int | None) -> Step:
        started = time.monotonic()
        turn = await self._ask(max_tokens)
        model_s = time.monotonic() - started
        span = self._recorder.add(turn.tokens) if turn.tokens is not None else None
        message = Message("assistant", turn.content, tool_calls=_distinct(turn.tool_calls), reasoning=turn.reasoning)
        self._messages.append(message)
        results: list[ToolResult] = []
        spent_s = self._calls.spent_s
        try:
            await self._calls.run(message.tool_calls, results, budget_s=end_s)
        finally:
            step = Step(
                message,
                tuple(results),
                malformed=turn.malformed,
                finish_reason=turn.finish_reason,
                usage=turn.usage,
                tokens=turn.tokens,
                span=span,
                metadata=turn.metadata,
                model_s=model_s,
                tools_s=self._calls.spent_s - spent_s,
            )
            self._steps.append(step)
            self._messages.extend(answer_call(*each) for each in zip(message.tool_calls, results, strict=False))
        self._messages.extend(map(answer_malformed, turn.malformed))
        if only_thinks(turn):
            self._messages.append(THINK_ONLY_ANSWER)
        return step

    async def _ask(self, max_tokens: int | None) -> AssistantTurn:
        try:
            return await self._conversation.respond(self.messages, max_tokens=max_tokens)
        except HermesError:
            raise
        except Exception as error:
            raise ModelError(f"the model failed: {type(error).__name__}: {error}") from error

    def _hear(self, messages: Sequence[Message]) -> None:
        opens = not self._messages and self._system_prompt and not any(m.role == "system" for m in messages)
        if opens and self._system_prompt:
            self._messages.append(Message("system", self._system_prompt))
        self._messages.extend(messages)


def _distinct(calls: Sequence[ToolCall]) -> tuple[ToolCall, ...]:
    """Give a call whose id another call of the turn has an id of its own: endpoints do repeat them."""
    seen: set[str] = set()
    distinct: list[ToolCall] = []
    for number, call in enumerate(calls):
        call = replace(call, id=f"{call.id}_{number}") if call.id in seen else call
        seen.add(call.id)
        distinct.append(call)
    return tuple(distinct)

"""The contract of an environment: a source of tasks and their scoring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pydantic import BaseModel

    from hermes_core.agent import AgentLimits
    from hermes_core.execution import JsonValue, Slot
    from hermes_core.models import AssistantTurn, Message, Sampling
    from hermes_core.trajectory import Trajectory

__all__ = ["Environment", "SandboxRequest", "Score", "Split", "Task"]

Split = Literal["train", "eval"]


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What a task needs of its sandbox.

    Attributes:
        profile: Name of a sandbox profile; None for the default one.
        image: Image of the task's own, where the backend supports it.
        network: `none`, or `host` when the task needs the network.
        limits: Limits of the slot that differ from the backend's (docs/reference/protocol.md).
    """

    profile: str | None = None
    image: str | None = None
    network: Literal["none", "host"] = "none"
    limits: Mapping[str, int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """One problem instance.

    Attributes:
        task_id: Deterministic for (environment configuration, split, seed); unique within them.
        prompt: The user message that opens the conversation; ignored when `messages` is given.
        messages: The opening messages, instead of `prompt`.
        toolsets: Toolsets that the task needs; None takes the environment's.
        sandbox: What it needs of a sandbox; None runs it without one.
        limits: The task's own agent limits, or None.
        sampling: The task's own sampling, or None.
        data: What scoring needs. It never reaches the agent.
    """

    task_id: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    toolsets: tuple[str, ...] | None = None
    sandbox: SandboxRequest | None = field(default_factory=SandboxRequest)
    limits: AgentLimits | None = None
    sampling: Sampling | None = None
    data: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """What a trajectory is worth.

    Attributes:
        reward: Usually 0.0 to 1.0.
        metrics: Further numbers, averaged over the run in its statistics.
        details: Facts for the record.
        messages: Messages to append to the saved conversation (test logs, …).
    """

    reward: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, JsonValue] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()


class Environment(Protocol):
    """A source of tasks and their scoring. Subclass it to inherit the defaults.

    An environment is made from its configuration alone: `MyEnvironment(MyConfig(field=value))`.
    """

    Config: ClassVar[type[BaseModel]]
    """Frozen pydantic model of the environment's settings, every field with a default."""

    name: ClassVar[str]
    """As it is registered."""

    toolsets: tuple[str, ...] = ()
    """Toolsets that its tasks get; a run may narrow them, never widen them."""

    endless: bool = False
    """Whether its tasks never end, so that a run must say how many it wants."""

    system_prompt: str | None = None
    """Opens every conversation, unless a task brings its own messages."""

    @property
    def config(self) -> BaseModel:
        """The configuration that it was made from."""

    def tasks(self, split: Split, seed: int) -> AsyncGenerator[Task]:
        """Yield the split's tasks in an order fixed by the seed; it may never end. Whoever iterates closes it."""

    async def setup(self, task: Task, slot: Slot | None) -> object:
        """Prepare the slot before the agent starts; what is returned reaches `score` as `setup`."""
        return None

    async def score(self, task: Task, slot: Slot | None, trajectory: Trajectory, setup: object) -> Score:
        """Score a trajectory whose outcome is the agent's own.

        Args:
            task: The task.
            slot: Its slot as the agent left it, or None without a sandbox. Look at it with `slot.grade`, which works
                whatever the agent did to it, a dead slot included.
            trajectory: Everything that happened; `reward` is None yet.
            setup: What `setup` returned.
        """

    def solution(self, task: Task) -> tuple[AssistantTurn, ...] | None:
        """The reference solution as assistant turns, played through real tool calls by the `oracle` model."""
        return None

"""`replay`: plays the turns of a recorded run again, against living sandboxes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from hermes_core.exceptions import ConfigError, ModelError, RunDirectoryError
from hermes_core.models import AssistantTurn, Model
from hermes_core.trajectory import TrajectoryIndex

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hermes_core.execution import JsonValue
    from hermes_core.models import Conversation, ConversationStart, Message
    from hermes_core.trajectory import Step, Trajectory

__all__ = ["ReplayConfig", "ReplayModel"]

_LISTED = 10

_LOG = logging.getLogger(__name__)


class ReplayConfig(BaseModel):
    """Which recording is played."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    """A run directory, or a file of trajectories."""


class ReplayModel(Model):
    """Says what was said for the same task and sample, and reports which calls are answered otherwise than then.

    A turn that comes after such answers names their calls in its metadata: `"differs": [{"call_id", "tool"}]`; both
    texts are in the two records. On leaving, a warning sums them up. Answers after the last recorded turn (where a
    limit ended it) are not compared.

    No token is sampled, so none is reported: the recorded ones belong to the recorded results.
    """

    Config = ReplayConfig
    name = "replay"
    shorthand = "path"

    def __init__(self, config: ReplayConfig) -> None:
        self.config = config
        self._index: TrajectoryIndex | None = None
        self._differing: dict[tuple[str, int], int] = {}

    async def __aenter__(self) -> Self:
        """Find each trajectory's place in the file.

        Raises:
            ConfigError: The recording cannot be read.
        """
        try:
            self._index = await anyio.to_thread.run_sync(TrajectoryIndex, self.config.path)
        except RunDirectoryError as error:
            raise ConfigError(f"nothing to replay: {error.message}", hint="give -M path=RUN_DIRECTORY") from None
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Say which trajectories did not go as recorded."""
        differing = [f"{task_id}/{sample} ({calls})" for (task_id, sample), calls in self._differing.items() if calls]
        if differing:
            more = ", …" if len(differing) > _LISTED else ""
            _LOG.warning(
                "%d of %d replayed trajectories got other results than recorded (task/sample, number of calls): %s",
                len(differing),
                len(self._differing),
                ", ".join(differing[:_LISTED]) + more,
            )

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin to play the recording of the same task and sample.

        Raises:
            ModelError: There is none.
        """
        if self._index is None:
            raise ModelError("the replay model was not entered")
        if (start.task_id, start.sample_index) not in self._index:
            raise ModelError(
                f"{self.config.path} holds no trajectory of task {start.task_id!r}, sample {start.sample_index}",
                hint="replay with the environment, split and seed of the recorded run",
            )
        self._differing[start.task_id, start.sample_index] = 0
        return _Playback(self._index, start.task_id, start.sample_index, self._differing)


class _Playback:
    def __init__(
        self, index: TrajectoryIndex, task_id: str, sample_index: int, differing: dict[tuple[str, int], int]
    ) -> None:
        self._index = index
        self._key = (task_id, sample_index)
        self._differing = differing
        self._recorded: Trajectory | None = None
        self._turns = 0
        self._heard = 0

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next recorded turn."""
        if self._recorded is None:
            self._recorded = await anyio.to_thread.run_sync(self._index.read, *self._key)
        if self._turns == len(self._recorded.steps):
            raise ModelError(f"the recording of task {self._key[0]!r}, sample {self._key[1]} has no further turn")
        differs = _differences(messages[self._heard :], self._recorded.messages[self._heard :])
        self._heard = len(messages)
        self._differing[self._key] += len(differs)
        self._turns += 1
        return _turn(self._recorded.steps[self._turns - 1], differs)


def _differences(heard: Sequence[Message], recorded: Sequence[Message]) -> list[JsonValue]:
    """The calls whose results are not the recorded ones."""
    return [
        {"call_id": now.tool_call_id, "tool": now.name}
        for now, then in zip(heard, recorded, strict=False)
        if now.role == then.role == "tool" and now.content != then.content
    ]


def _turn(step: Step, differs: list[JsonValue]) -> AssistantTurn:
    recorded = {name: value for name, value in step.metadata.items() if name != "differs"}
    return AssistantTurn(
        step.message.content,
        tool_calls=step.calls,
        malformed=step.malformed,
        reasoning=step.message.reasoning,
        finish_reason=step.finish_reason,
        usage=step.usage,
        metadata={**recorded, "differs": differs} if differs else recorded,
    )

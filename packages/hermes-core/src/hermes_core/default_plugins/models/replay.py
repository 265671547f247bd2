"""`replay`: plays the turns of a recorded run again, against living sandboxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import anyio.to_thread
from pydantic import BaseModel, ConfigDict

from hermes_core.exceptions import ConfigError, ModelError, RunDirectoryError
from hermes_core.models import AssistantTurn, Model
from hermes_core.trajectory import TrajectoryIndex

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hermes_core.models import Conversation, ConversationStart, Message
    from hermes_core.trajectory import Trajectory

__all__ = ["ReplayConfig", "ReplayModel"]


class ReplayConfig(BaseModel):
    """Which recording is played."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    """A run directory, or a file of trajectories."""


class ReplayModel(Model):
    """Says what was said for the same task and sample; results of the calls may differ from the recorded ones.

    No token is sampled, so none is reported: the recorded ones belong to the recorded results.
    """

    Config = ReplayConfig
    name = "replay"

    def __init__(self, config: ReplayConfig) -> None:
        self.config = config
        self._index: TrajectoryIndex | None = None

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
        return _Playback(self._index, start.task_id, start.sample_index)


class _Playback:
    def __init__(self, index: TrajectoryIndex, task_id: str, sample_index: int) -> None:
        self._index = index
        self._key = (task_id, sample_index)
        self._turns: Iterator[AssistantTurn] | None = None

    async def respond(self, messages: Sequence[Message]) -> AssistantTurn:
        """Say the next recorded turn."""
        if self._turns is None:
            self._turns = _turns(await anyio.to_thread.run_sync(self._index.read, *self._key))
        turn = next(self._turns, None)
        if turn is None:
            raise ModelError(f"the recording of task {self._key[0]!r}, sample {self._key[1]} has no further turn")
        return turn


def _turns(trajectory: Trajectory) -> Iterator[AssistantTurn]:
    for step in trajectory.steps:
        yield AssistantTurn(
            step.message.content,
            tool_calls=step.calls,
            malformed=step.malformed,
            reasoning=step.message.reasoning,
            finish_reason=step.finish_reason,
            usage=step.usage,
            metadata=step.metadata,
        )

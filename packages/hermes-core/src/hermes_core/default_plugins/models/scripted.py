"""`scripted`: says turns that were written beforehand, the same ones in each trajectory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio.to_thread
import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from hermes_core.exceptions import ConfigError, ContextExceededError, ModelError, ModelResponseError
from hermes_core.execution import ToolCall
from hermes_core.models import AssistantTurn, FinishReason, LogprobsMode, Model, TurnTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models import Conversation, ConversationStart, Message, ToolCallFormat

__all__ = ["ScriptedCall", "ScriptedConfig", "ScriptedModel", "ScriptedTokens", "ScriptedTurn"]


class ScriptedCall(BaseModel):
    """One tool call of a scripted turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """The tool's name."""

    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Its arguments."""

    id: str | None = None
    """The call's own id; made up when not given."""


class ScriptedTokens(BaseModel):
    """Tokens that the turn claims to have sampled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt_ids: tuple[int, ...]
    """What the engine was given."""

    completion_ids: tuple[int, ...]
    """What it sampled."""

    logprobs: tuple[float, ...]
    """Log probabilities of the sampled tokens."""

    logprobs_mode: LogprobsMode = "unknown"
    """What the logprobs are of."""


class ScriptedTurn(BaseModel):
    """One assistant turn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str = ""
    """What the model says; read by `tool_call_format` when the script has one."""

    tool_calls: tuple[ScriptedCall, ...] = ()
    """Its calls."""

    reasoning: str | None = None
    """Thinking apart from the content."""

    finish_reason: FinishReason = "stop"
    """Why the turn ended."""

    tokens: ScriptedTokens | None = None
    """Exact tokens, for tests of what consumes them."""

    delay_s: float = Field(default=0.0, ge=0)
    """Seconds that the model takes for the turn."""

    fails: Literal["model_error", "context_exceeded"] | None = None
    """Fail in this way instead of saying anything."""


class ScriptedConfig(BaseModel):
    """What is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    turns: tuple[ScriptedTurn | str, ...] = ()
    """The turns, in order; a string is a turn with that content."""

    path: Path | None = None
    """A file that holds the turns instead: a YAML or JSON list, or JSONL with one turn a line."""

    tool_call_format: str | None = None
    """Read calls out of the content by this format ("hermes")."""

    repeat_last: bool = False
    """After the last turn say it again and again; otherwise one more turn is a model error."""


class ScriptedModel(Model):
    """Plays a script. For tests, demonstrations, and for reproducing what a model once did."""

    Config = ScriptedConfig
    name = "scripted"

    def __init__(self, config: ScriptedConfig) -> None:
        self.config = config
        self._turns = tuple(ScriptedTurn(content=t) if isinstance(t, str) else t for t in config.turns)

    async def __aenter__(self) -> Self:
        """Read the script.

        Raises:
            ConfigError: The file cannot be read or is no script, or the format is unknown.
        """
        if self.config.path is not None:
            self._turns = await anyio.to_thread.run_sync(_read_turns, self.config.path)
        if not self._turns:
            raise ConfigError("the scripted model has nothing to say", hint="give it turns, or the path of a file")
        form = self.config.tool_call_format
        if form is not None and form not in self.tool_call_formats:
            raise ConfigError(f"unknown tool-call format {form!r}", hint=f"known: {', '.join(self.tool_call_formats)}")
        return self

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin the script from its first turn."""
        name = self.config.tool_call_format
        form = self.tool_call_formats[name].for_tools(start.tools) if name else None
        return _Recital(self._turns, form, self.config.repeat_last)


class _Recital:
    def __init__(self, turns: tuple[ScriptedTurn, ...], form: ToolCallFormat | None, repeat_last: bool) -> None:
        self._turns = turns
        self._form = form
        self._repeat_last = repeat_last
        self._next = 0

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next turn."""
        number = min(self._next, len(self._turns) - 1) if self._repeat_last else self._next
        if number >= len(self._turns):
            raise ModelError(
                f"the script has {len(self._turns)} turns and the agent asked for another",
                hint="end the script with a turn without calls, or set repeat_last=true",
            )
        self._next += 1
        turn = self._turns[number]
        await anyio.sleep(turn.delay_s)
        if turn.fails == "context_exceeded":
            raise ContextExceededError("the script says that the context is exceeded")
        if turn.fails == "model_error":
            raise ModelResponseError("the script says that the model fails")
        return self._as_assistant_turn(turn)

    def _as_assistant_turn(self, turn: ScriptedTurn) -> AssistantTurn:
        parsed = self._form.parse(turn.content) if self._form else None
        calls = tuple(
            ToolCall(call.name, call.arguments, call.id) if call.id else ToolCall(call.name, call.arguments)
            for call in turn.tool_calls
        )
        return AssistantTurn(
            content=parsed.content if parsed else turn.content,
            tool_calls=(*parsed.calls, *calls) if parsed else calls,
            malformed=parsed.malformed if parsed else (),
            reasoning=turn.reasoning,
            finish_reason=turn.finish_reason,
            tokens=TurnTokens(**turn.tokens.model_dump()) if turn.tokens else None,
        )


def _read_turns(path: Path) -> tuple[ScriptedTurn, ...]:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            turns: Any = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            turns = yaml.safe_load(text)
        config = ScriptedConfig(**turns) if isinstance(turns, dict) else ScriptedConfig(turns=turns)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ConfigError(f"script {path}: {where}: {fault['msg']}") from None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"script {path} cannot be read: {reason}") from error
    return tuple(ScriptedTurn(content=turn) if isinstance(turn, str) else turn for turn in config.turns)

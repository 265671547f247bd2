"""One trajectory's talk with llama.cpp."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_core.models import AssistantTurn, Message, ToolCallFormat, TurnTokens, Usage, plain_messages
from hermes_model_llamacpp._completion import complete
from hermes_model_llamacpp._grammar import CALL_END, CALL_START, calls_grammar
from hermes_model_llamacpp._template import opening_ids, suffix_ids

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_core.models import ConversationStart, FinishReason, LogprobsMode, ParsedText, Sampling
    from hermes_model_llamacpp._client import LlamaClient
    from hermes_model_llamacpp._completion import Completion

__all__ = ["Decoding", "LocalConversation"]

_WORD_TRIGGER = 1  # llama.cpp: the grammar begins where this word is sampled


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the turns of a model's conversations are sampled.

    Attributes:
        form: How tools are told, and how calls are read.
        max_tokens: Most tokens of a turn, where the sampling does not say.
        forced_calls: Turns, from the first on, that must be a call.
        constrain: Hold a call that the model begins by itself to its schema.
        saved: The folder in which the server saves slots, or None.
        model: The file's name, for the record.
        policy_version: Version of the weights, if known.
    """

    form: ToolCallFormat
    max_tokens: int
    forced_calls: int
    constrain: bool
    saved: Path | None
    model: str
    policy_version: str | None = None


class LocalConversation:
    """Keeps the ids of everything said; a turn's prompt is the ids so far and what came since.

    Logprobs are the model's own (llama.cpp's `post_sampling_probs` is false): of the softmax of the raw logits at
    temperature 1, before temperature, top-p, stop strings and grammar. They are `processed`, which is of the sampling
    distribution, exactly when nothing comes between: temperature 1, no top-p below 1, no grammar. The grammar of a
    forced call sets `constrained`, and so does a call that the model began by itself when it is held to its schema.
    """

    def __init__(self, client: LlamaClient, start: ConversationStart, decoding: Decoding) -> None:
        self._client = client
        self._start = start
        self._decoding = decoding
        self._heard: tuple[Message, ...] = ()
        self._said: Message | None = None
        self._ids: tuple[int, ...] = ()
        self._slot: int | None = None
        self._turns = 0

    async def respond(self, messages: Sequence[Message]) -> AssistantTurn:
        """Sample the next assistant turn.

        Raises:
            ContextExceededError: The conversation does not fit.
            TokenDataError: The server gave no exact tokens.
            ModelError: The server failed.
        """
        prompt = await self._prompt(messages)
        forced = bool(self._start.tools) and self._turns < self._decoding.forced_calls
        settings = self._settings(forced=forced)
        completion = await complete(
            self._client, prompt, settings, saved=self._decoding.saved, preferred_slot=self._slot
        )
        parsed = self._decoding.form.parse(completion.text)
        self._heard = tuple(messages)
        self._said = Message("assistant", parsed.content, tool_calls=parsed.calls)
        self._ids = prompt + completion.ids
        self._slot = completion.slot
        self._turns += 1
        constrained = forced or ("grammar" in settings and CALL_START in completion.text)
        return self._turn(prompt, completion, parsed, constrained=constrained)

    async def _prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The ids so far and those of what came since; from the start again if the history was edited."""
        form = self._decoding.form
        if self._continues(messages):
            news = plain_messages(form, messages[len(self._heard) + 1 :], ())
            suffix = await suffix_ids(self._client, news, self._ids[-1])
            if suffix is not None:
                return self._ids + suffix
        return await opening_ids(self._client, plain_messages(form, messages, self._start.tools))

    def _continues(self, messages: Sequence[Message]) -> bool:
        heard = len(self._heard)
        if self._said is None or len(messages) <= heard or tuple(messages[:heard]) != self._heard:
            return False
        return _spoken(messages[heard]) == _spoken(self._said)

    def _settings(self, *, forced: bool) -> dict[str, object]:
        """The request's fields besides the prompt."""
        sampling, decoding = self._start.sampling, self._decoding
        max_tokens = sampling.max_tokens or decoding.max_tokens
        settings: dict[str, object] = {
            "n_predict": max_tokens,
            # Nothing but what was asked for: llama.cpp's defaults also cut by top-k and min-p.
            "samplers": ["temperature", "top_p"],
            "top_k": 0,
            "min_p": 0.0,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "seed": self._seed(sampling),
            "stop": list(sampling.stop),
            "timings_per_token": True,  # among them each streamed token's position
        }
        if sampling.temperature is not None:
            settings["temperature"] = sampling.temperature
        if self._start.tools and (forced or decoding.constrain):
            settings["grammar"] = calls_grammar(self._start.tools, max_tokens=max_tokens, single=forced)
            settings["preserved_tokens"] = [CALL_START, CALL_END]
            if not forced:
                settings["grammar_lazy"] = True
                settings["grammar_triggers"] = [{"type": _WORD_TRIGGER, "value": CALL_START}]
        return settings

    def _seed(self, sampling: Sampling) -> int:
        """A seed of this turn's own: the samples of a group must differ."""
        if sampling.seed is None:
            return -1
        of = f"{sampling.seed}/{self._start.task_id}/{self._start.sample_index}/{self._turns}"
        return int.from_bytes(hashlib.sha256(of.encode()).digest()[:4], "big") >> 1

    def _turn(
        self, prompt: tuple[int, ...], completion: Completion, parsed: ParsedText, *, constrained: bool
    ) -> AssistantTurn:
        return AssistantTurn(
            content=parsed.content,
            tool_calls=parsed.calls,
            malformed=parsed.malformed,
            finish_reason=_finish_reason(completion, parsed),
            usage=Usage(len(prompt), len(completion.ids)),
            tokens=TurnTokens(
                prompt_ids=prompt,
                completion_ids=completion.ids,
                logprobs=completion.logprobs,
                logprobs_mode=_logprobs_mode(self._start.sampling, constrained=constrained),
                constrained=constrained,
                policy_version=self._decoding.policy_version,
            ),
            metadata={"model": self._decoding.model, "cached_prompt_tokens": completion.cached},
        )


def _spoken(message: Message) -> tuple[str, str, list[tuple[str, dict[str, object]]]]:
    """What makes a turn the same turn; ids of calls may be changed by the agent."""
    return message.role, message.content, [(call.name, dict(call.arguments)) for call in message.tool_calls]


def _finish_reason(completion: Completion, parsed: ParsedText) -> FinishReason:
    if completion.stop_type == "limit":
        return "length"
    return "tool_calls" if parsed.calls else "stop"


def _logprobs_mode(sampling: Sampling, *, constrained: bool) -> LogprobsMode:
    neutral = sampling.temperature == 1.0 and sampling.top_p in (None, 1.0) and not constrained
    return "processed" if neutral else "raw"

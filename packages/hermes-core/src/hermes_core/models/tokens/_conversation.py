"""One trajectory's talk with an engine that returns its tokens."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from hermes_core.models._format import ToolCallFormat, plain_messages
from hermes_core.models._message import Message
from hermes_core.models._turn import AssistantTurn, TurnTokens, Usage
from hermes_core.models.tokens._check import check_tokens
from hermes_core.models.tokens._prompt import opening_ids, suffix_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models._format import ParsedText
    from hermes_core.models._protocol import ConversationStart
    from hermes_core.models._turn import FinishReason, Sampling
    from hermes_core.models.tokens._engine import Completion, TokenEngine
    from hermes_core.models.tokens._tokenizer import Tokenizer

__all__ = ["History", "TokenConversation"]

History = Literal["append", "template"]


class TokenConversation:
    """Keeps the ids of everything said, and the text as a view of them.

    Args:
        engine: Samples.
        tokenizer: Tokenizer and chat template.
        start: What the trajectory begins with.
        form: How tools are told, and how calls are read.
        history: `append`: a turn's prompt is the ids so far and those of what came since, so that a trajectory is one
            segment, earlier thinking included. `template`: every prompt is rendered anew by the template, as a deployed
            model sees it; a segment ends where it does not begin with what came before.
    """

    def __init__(
        self,
        engine: TokenEngine,
        tokenizer: Tokenizer,
        start: ConversationStart,
        form: ToolCallFormat,
        *,
        history: History = "append",
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._start = start
        self._form = form.for_tools(start.tools)
        self._history = history
        self._heard: tuple[Message, ...] = ()
        self._said: Message | None = None
        self._tokens: TurnTokens | None = None
        self._turns = 0

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Sample the next assistant turn.

        Raises:
            ContextExceededError: The conversation does not fit.
            TokenDataError: The engine gave no exact tokens.
            ModelError: The engine failed.
        """
        prompt, after = await self._prompt(messages)
        completion = await self._engine.generate(prompt, self._sampling(max_tokens))
        check_tokens(completion.ids, completion.logprobs, engine=self._engine.name, hint=self._engine.setting)
        parsed = self._form.parse(await self._text(completion))
        self._heard = tuple(messages)
        self._said = Message("assistant", parsed.content, tool_calls=parsed.calls)
        self._tokens = _tokens(prompt, completion, after)
        self._turns += 1
        return _turn(self._tokens, completion, parsed)

    async def _prompt(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], TurnTokens | None]:
        """The ids so far and those of what came since, and what they begin with.

        From the start again, and nothing, if the history was edited or is the template's.
        """
        last = self._tokens
        if last is not None and self._history == "append" and self._continues(messages):
            news = plain_messages(self._form, messages[len(self._heard) + 1 :], ())
            suffix = await suffix_ids(self._tokenizer, news, last.completion_ids[-1])
            if suffix is not None:
                return last.prompt_ids + last.completion_ids + suffix, last
        return await opening_ids(self._tokenizer, plain_messages(self._form, messages, self._start.tools)), None

    def _continues(self, messages: Sequence[Message]) -> bool:
        heard = len(self._heard)
        if self._said is None or len(messages) <= heard or tuple(messages[:heard]) != self._heard:
            return False
        return _spoken(messages[heard]) == _spoken(self._said)

    def _sampling(self, max_tokens: int | None) -> Sampling:
        """What is left of a budget, and a seed of this turn's own: the samples of a group must differ."""
        sampling = self._start.sampling.within(max_tokens)
        if sampling.seed is None:
            return sampling
        of = f"{sampling.seed}/{self._start.task_id}/{self._start.sample_index}/{self._turns}"
        return replace(sampling, seed=int.from_bytes(hashlib.sha256(of.encode()).digest()[:4], "big") >> 1)

    async def _text(self, completion: Completion) -> str:
        """What the engine says it is, or else what the ids spell."""
        if completion.text is not None:
            return completion.text
        ids = completion.ids
        text = await self._tokenizer.decode(ids[:-1] if ids[-1] in self._tokenizer.eos_ids else ids)
        ends = [at for stop in self._start.sampling.stop if (at := text.find(stop)) >= 0]
        return text[: min(ends)] if ends else text


def _tokens(prompt: tuple[int, ...], completion: Completion, after: TurnTokens | None) -> TurnTokens:
    return TurnTokens(
        prompt_ids=prompt,
        completion_ids=completion.ids,
        logprobs=completion.logprobs,
        logprobs_mode=completion.logprobs_mode,
        constrained=completion.constrained,
        policy_version=completion.policy_version,
        after=after,
    )


def _turn(tokens: TurnTokens, completion: Completion, parsed: ParsedText) -> AssistantTurn:
    return AssistantTurn(
        content=parsed.content,
        tool_calls=parsed.calls,
        malformed=parsed.malformed,
        finish_reason=_finish_reason(completion, parsed),
        usage=Usage(len(tokens.prompt_ids), len(completion.ids)),
        tokens=tokens,
        metadata=completion.metadata,
    )


def _spoken(message: Message) -> tuple[str, str, list[tuple[str, dict[str, object]]]]:
    """What makes a turn the same turn; ids of calls may be changed by the agent."""
    return message.role, message.content, [(call.name, dict(call.arguments)) for call in message.tool_calls]


def _finish_reason(completion: Completion, parsed: ParsedText) -> FinishReason:
    if completion.finish_reason == "length":
        return "length"
    return "tool_calls" if parsed.calls else "stop"

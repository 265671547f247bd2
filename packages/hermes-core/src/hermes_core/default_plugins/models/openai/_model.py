"""The model behind an OpenAI-compatible chat endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import anyio
import openai

from hermes_core.default_plugins.models.openai._config import OpenAIConfig, endpoint_of
from hermes_core.default_plugins.models.openai._errors import mapped_errors, retry_delay, unreachable
from hermes_core.default_plugins.models.openai._wire import (
    UnusableAnswerError,
    listed_models,
    message_to_wire,
    plain_to_wire,
    sampling_to_wire,
    tool_to_wire,
    turn_from_wire,
)
from hermes_core.exceptions import ConfigError, ModelError
from hermes_core.models import Model, plain_messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hermes_core.models import AssistantTurn, Conversation, ConversationStart, Message, ToolCallFormat

__all__ = ["OpenAIModel"]

_LOOK_S = 10.0


class OpenAIModel(Model):
    """Chat completions of any OpenAI-compatible endpoint. It returns no tokens: for evaluation and SFT data.

    The SDK's own retries are off, because they do not count towards a deadline for each attempt.
    """

    Config = OpenAIConfig
    name = "openai"
    shorthand = "model"

    def __init__(self, config: OpenAIConfig | None = None) -> None:
        self.config = config or OpenAIConfig()
        self._endpoint = endpoint_of(self.config)
        self._model = self._endpoint.model or ""
        self._client: openai.AsyncOpenAI | None = None
        self._places: anyio.Semaphore

    async def __aenter__(self) -> Self:
        """Connect, and see that the endpoint answers.

        Raises:
            ModelUnreachableError: Nothing answers.
            ModelResponseError: It refuses the key.
            ConfigError: No model is named and the endpoint lists none, or the tool-call format is unknown.
        """
        self._form()
        self._places = anyio.Semaphore(self.config.max_concurrency)
        self._client = openai.AsyncOpenAI(
            base_url=self._endpoint.base_url,
            api_key=self._endpoint.key.get_secret_value(),
            timeout=self.config.timeout_s,
            max_retries=0,
        )
        try:
            listed = await self._look()
            self._model = self._model or next(iter(listed), "")
            if not self._model:
                raise ConfigError(
                    f"no model is named, and {self._endpoint.base_url} lists none", hint="give -M model=ID"
                )
        except BaseException:
            await self._close()
            raise
        self.name = f"openai:{self._model}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._close()

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin a conversation; it keeps nothing between turns."""
        return _Chat(self, start, self._form())

    async def complete(self, request: dict[str, object], form: ToolCallFormat | None) -> AssistantTurn:
        """Make one completion, tried again as far as that helps.

        Raises:
            ModelError: The endpoint failed.
            ContextExceededError: The conversation does not fit.
        """
        with mapped_errors(self._endpoint):
            attempt = 0
            while True:
                try:
                    return turn_from_wire(await self._post(request), form)
                except (openai.OpenAIError, UnusableAnswerError) as error:
                    delay = retry_delay(error, attempt)
                    if delay is None or attempt == self.config.max_retries:
                        raise
                attempt += 1
                await anyio.sleep(delay)

    async def _post(self, request: dict[str, object]) -> str:
        # Reads the raw body: what is wrong with an answer is ours to say, and what the SDK does not know is not lost.
        completions = cast("Any", self._opened().chat.completions.with_raw_response)
        async with self._places:
            with anyio.fail_after(self.config.timeout_s):
                answer = await completions.create(
                    model=self._model, extra_body=self.config.extra_body or None, **request
                )
        return cast("str", answer.http_response.text)

    async def _look(self) -> list[str]:
        try:
            with anyio.fail_after(_LOOK_S):
                answer = await self._opened().models.with_raw_response.list()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                with mapped_errors(self._endpoint):
                    raise
            return []  # it answers, and need not list its models
        except (TimeoutError, openai.APIConnectionError):
            raise unreachable(self._endpoint) from None
        return listed_models(answer.http_response.text)

    def _form(self) -> ToolCallFormat | None:
        name = self.config.tool_call_format
        if name == "structured":
            return None
        if name not in self.tool_call_formats:
            known = ", ".join(sorted(self.tool_call_formats))
            raise ConfigError(f"unknown tool-call format {name!r}", hint=f"structured, or a text format: {known}")
        return self.tool_call_formats[name]

    def _opened(self) -> openai.AsyncOpenAI:
        if self._client is None:
            raise ModelError("the openai model is not open", hint="enter it first: async with model")
        return self._client

    async def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with anyio.move_on_after(2, shield=True):
                await client.close()


class _Chat:
    def __init__(self, model: OpenAIModel, start: ConversationStart, form: ToolCallFormat | None) -> None:
        self._model = model
        self._form = form
        self._tools = start.tools
        self._settings = sampling_to_wire(start.sampling)
        if form is None and start.tools:
            self._settings["tools"] = [tool_to_wire(tool) for tool in start.tools]

    async def respond(self, messages: Sequence[Message]) -> AssistantTurn:
        """Say the next turn."""
        if self._form is None:
            told = [message_to_wire(message) for message in messages]
        else:
            told = plain_to_wire(plain_messages(self._form, messages, self._tools))
        return await self._model.complete({"messages": told, **self._settings}, self._form)

"""The model behind OpenAI-compatible chat endpoints."""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

import anyio

from hermes_core.default_plugins.models._balance import awake, choose
from hermes_core.default_plugins.models._dumps import Dumps
from hermes_core.default_plugins.models.openai._config import OpenAIConfig, endpoints_of, pace_of
from hermes_core.default_plugins.models.openai._connection import Connection
from hermes_core.default_plugins.models.openai._errors import FAULTS, mapped_errors, retry_delay, unreachable
from hermes_core.default_plugins.models.openai._providers import NOUS, OPENAI, OPENROUTER
from hermes_core.default_plugins.models.openai._wire import (
    message_to_wire,
    plain_to_wire,
    sampling_to_wire,
    tool_to_wire,
    turn_from_wire,
)
from hermes_core.exceptions import ConfigError, ModelError, ModelResponseError, ModelUnreachableError
from hermes_core.models import Model, PromptedFormat, plain_messages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from hermes_core.models import AssistantTurn, Conversation, ConversationStart, Message, ToolCallFormat

__all__ = ["NousModel", "OpenAIModel", "OpenRouterModel"]

_logger = logging.getLogger(__name__)

_OLD_DUMPS = "ATROPOS_DEBUG_AGENT_REQUEST_SAVE_DIR"


class OpenAIModel(Model):
    """Chat completions of any OpenAI-compatible endpoint. It returns no tokens: for evaluation and SFT data.

    Requests are shared among its endpoints. One that fails is left alone for a while; a conversation stays where it
    is, so that the endpoint's prefix cache is of use.
    """

    Config = OpenAIConfig
    name = "openai"
    shorthand = "model"
    provider = OPENAI

    def __init__(self, config: OpenAIConfig | None = None) -> None:
        self.config = config or OpenAIConfig()
        self._endpoints = endpoints_of(self.config, self.provider)
        self._pace = pace_of(self.config)
        self._connections: list[Connection] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Connect, and see that an endpoint answers.

        Raises:
            ModelUnreachableError: Nothing answers.
            ModelResponseError: An endpoint refuses the key.
            ConfigError: No model is named and the endpoints list none or different ones, the tool-call format is
                unknown, or `debug_dir` cannot be written.
        """
        self._form()
        if self.provider.needs_key and not self._endpoints[0].model:
            raise ConfigError(f"which model of {self.provider.name}?", hint=f"name it: {self.provider.name}:MODEL")
        if _OLD_DUMPS in os.environ and self.config.debug_dir is None:
            _logger.warning("%s is not read any more: use --debug-model DIR, or -M debug_dir=DIR", _OLD_DUMPS)
        dumps = None if self.config.debug_dir is None else Dumps(self.config.debug_dir.expanduser())
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(Connection(endpoint, self.config, self._pace, dumps))
                for endpoint in self._endpoints
            ]
            await self._look(connections)
            self._stack = stack.pop_all()
        self._connections = connections
        self.name = f"{self.provider.name}:{connections[0].model}"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._connections = []
        await self._stack.aclose()

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin a conversation; of earlier turns it keeps only which endpoint they came from."""
        return _Chat(self, start, self._form())

    async def complete(
        self, request: dict[str, object], form: ToolCallFormat | None, before: Connection | None
    ) -> tuple[AssistantTurn, Connection]:
        """Make one completion, tried again as far as that helps.

        Args:
            request: Its messages and settings.
            form: The text format to read calls by; None for structured ones.
            before: Where the conversation's last turn came from.

        Returns:
            The turn, and where it came from.

        Raises:
            ModelError: The endpoint failed.
            ContextExceededError: The conversation does not fit.
            ConfigError: The endpoint refuses the key or does not know the model, and never completed anything.
        """
        if not self._connections:
            raise ModelError(f"the {self.provider.name} model is not open", hint="enter it first: async with model")
        attempt = 0
        while True:
            connection = choose(self._connections, before)
            try:
                turn = turn_from_wire(await connection.post(request), form)
            except FAULTS as error:
                delay = retry_delay(error, attempt)
                if delay is not None:
                    connection.failed(delay)
                if delay is None or attempt == self.config.max_retries:
                    with mapped_errors(connection.endpoint, listed=connection.listed, worked=connection.worked):
                        raise
            else:
                connection.succeeded()
                return turn, connection
            attempt += 1
            if not awake(self._connections):
                await anyio.sleep(delay)

    async def _look(self, connections: Sequence[Connection]) -> None:
        missing: list[Connection] = []
        for connection in connections:
            try:
                await connection.look()
            except ModelUnreachableError:
                missing.append(connection)
                connection.failed(0.0)
        if len(missing) == len(connections):
            raise unreachable(self._endpoints)
        for connection in missing:
            _logger.warning("nothing answers at %s: it gets no requests for a while", connection.endpoint.shown)
        model = next((each.model for each in connections if each.model), "")
        if not model:
            at = ", ".join(endpoint.shown for endpoint in self._endpoints)
            raise ConfigError(f"no model is named, and {at} lists none", hint="give -M model=ID")
        differing = sorted({each.model for each in connections if each.model} - {model})
        if differing:
            raise ConfigError(
                f"the endpoints serve different models: {', '.join([model, *differing])}", hint="give -M model=ID"
            )
        for connection in connections:
            connection.model = model

    def _form(self) -> ToolCallFormat | None:
        name, given = self.config.tool_call_format, self.config.system_prompt
        if name == "structured":
            if given is not None:
                raise ConfigError(
                    "structured tool calls have no prompt that system_prompt could replace",
                    hint="add -M tool_call_format=hermes, or let the environment say it",
                )
            return None
        if name not in self.tool_call_formats:
            known = ", ".join(sorted(self.tool_call_formats))
            raise ConfigError(f"unknown tool-call format {name!r}", hint=f"structured, or a text format: {known}")
        form = self.tool_call_formats[name]
        return form if given is None else PromptedFormat(form, given)


class OpenRouterModel(OpenAIModel):
    """Models of OpenRouter."""

    name = "openrouter"
    provider = OPENROUTER


class NousModel(OpenAIModel):
    """Models of Nous' hosted API."""

    name = "nous"
    provider = NOUS


class _Chat:
    def __init__(self, model: OpenAIModel, start: ConversationStart, form: ToolCallFormat | None) -> None:
        self._model = model
        self._form = form.for_tools(start.tools) if form else None
        self._tools = start.tools
        self._connection: Connection | None = None
        self._sampling = start.sampling
        self._settings: dict[str, object] = {}
        if form is None and start.tools:
            self._settings["tools"] = [tool_to_wire(tool) for tool in start.tools]

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next turn."""
        if self._form is None:
            told = [message_to_wire(message) for message in messages]
        else:
            told = plain_to_wire(plain_messages(self._form, messages, self._tools))
        request = {"messages": told, **sampling_to_wire(self._sampling.within(max_tokens)), **self._settings}
        turn, self._connection = await self._model.complete(request, self._form, self._connection)
        if max_tokens is not None and turn.usage is None:
            raise ModelResponseError(
                f"{self._connection.endpoint.shown} does not say how many tokens a turn has, and there is a budget",
                hint="leave the limit max_tokens out, or bound each turn by the sampling's max_tokens",
            )
        return turn

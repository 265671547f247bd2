"""What the engines' models share."""

from __future__ import annotations

import logging
from abc import abstractmethod
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hermes_core.config import first_variable
from hermes_core.default_plugins.models.engines._servers import EngineServers
from hermes_core.exceptions import ConfigError, ContextExceededError, UsageError
from hermes_core.models import Model, PromptedFormat
from hermes_core.models.tokens import FolderTokenizer, PrefixCheck, TokenConversation, check_prefix, model_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from hermes_core.default_plugins.models.engines._config import EngineConfig
    from hermes_core.models import Conversation, ConversationStart, Sampling, ToolCallFormat
    from hermes_core.models.tokens import TokenEngine, Tokenizer

__all__ = ["EngineModel", "room"]

_TOKENIZER_VARIABLES = ("ATROPOS_TOKENIZER_NAME",)
_LOG = logging.getLogger(__name__)


class EngineModel(Model):
    """A server that takes token ids and returns them.

    Args:
        config: Where it is.
    """

    shorthand = "base_url"
    name = ""
    """The name that it is registered by; once it is entered, with the model that the server runs."""

    title = ""
    """As errors call the engine."""

    address = ""
    """Where it usually is."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self.model = ""
        """The model that the server runs, as it says."""
        self.prefix: PrefixCheck | None = None
        """What the chat template does to earlier turns; None before the model is entered."""
        self._stack = AsyncExitStack()
        self._make_engine: Callable[[], TokenEngine] | None = None
        self._tokenizer: Tokenizer

    @property
    def prefix_preserving(self) -> bool:
        """Whether the chat template leaves earlier turns as they were, for tool results and user messages."""
        return self.prefix is not None and self.prefix.preserving

    @abstractmethod
    async def _connect(self, servers: EngineServers) -> tuple[Callable[[], TokenEngine], Tokenizer]:
        """Ask the servers what they run; return what makes an engine for each conversation, and the tokenizer."""

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin one trajectory's conversation.

        Raises:
            UsageError: The model was not entered.
        """
        if self._make_engine is None:
            raise UsageError(f"the model {self.name!r} is not open", hint="use it as an async context manager")
        return TokenConversation(self._make_engine(), self._tokenizer, start, self._form(), history=self.config.history)

    async def __aenter__(self) -> Self:
        """Connect, and see what the server's chat template does to earlier turns.

        Raises:
            ModelUnreachableError: Nothing answers.
            ModelResponseError: What answers is not that engine.
            ConfigError: There is no tokenizer, no such tool-call format, or the servers run different models.
        """
        form = self._form()
        async with AsyncExitStack() as stack:
            servers = await stack.enter_async_context(EngineServers(self.title, self.config, self.address))
            make_engine, self._tokenizer = await self._connect(servers)
            self.prefix = await check_prefix(self._tokenizer, form)
            self._stack = stack.pop_all()
        self._make_engine = make_engine
        self.name = f"{type(self).name}:{self.model}" if self.model else type(self).name
        self._tell(self.prefix)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._make_engine = None
        await self._stack.aclose()

    def _agreed(self, models: Iterable[str]) -> str:
        """The one model that all servers run."""
        named = sorted(set(models))
        if len(named) > 1:
            raise ConfigError(
                f"the servers of {self.title} run different models: {', '.join(named)}",
                hint="share requests among servers of one model only",
            )
        return named[0]

    def _context(self, found: Iterable[object]) -> int | None:
        """Tokens of one trajectory: what is configured, else the least that a server says."""
        counts = [each for each in found if isinstance(each, int)]
        return self.config.context or min(counts, default=None)

    def _folder_tokenizer(self) -> FolderTokenizer | None:
        named = self.config.tokenizer or first_variable(_TOKENIZER_VARIABLES)
        return None if named is None else FolderTokenizer(model_folder(Path(named)))

    def _form(self) -> ToolCallFormat:
        name = self.config.tool_call_format
        if name not in self.tool_call_formats:
            known = ", ".join(sorted(self.tool_call_formats))
            raise ConfigError(f"unknown tool-call format {name!r}", hint=f"registered: {known}")
        form = self.tool_call_formats[name]
        given = self.config.system_prompt
        return form if given is None else PromptedFormat(form, given)

    def _tell(self, prefix: PrefixCheck) -> None:
        if prefix.preserving:
            _LOG.info("%s: the chat template keeps earlier turns as they are", self.name)
        elif self.config.history == "append":
            _LOG.warning("%s: %s; history=append keeps them, one segment a trajectory", self.name, prefix.reason)
        else:
            _LOG.warning("%s: %s; with history=template a new segment begins there", self.name, prefix.reason)


def room(engine: str, prompt: int, context: int | None, sampling: Sampling, config: EngineConfig) -> int:
    """How many tokens may be sampled.

    Args:
        engine: As errors call it.
        prompt: Tokens of the prompt.
        context: Tokens of the model's context, if known.
        sampling: What the run asks for.
        config: What is configured.

    Raises:
        ContextExceededError: There is no room for one.
    """
    wanted = sampling.max_tokens or config.max_tokens
    if context is None:
        return wanted
    if prompt >= context:
        raise ContextExceededError(f"{engine}: {prompt} tokens leave no room in a context of {context}")
    return min(wanted, context - prompt)

"""The model `local`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from hermes_core.diagnosis import Finding
from hermes_core.exceptions import ModelUnreachableError, UsageError
from hermes_core.models import HERMES_FORMAT, Model, PromptedFormat
from hermes_core.models.tokens import TokenConversation
from hermes_model_llamacpp._catalog import find_model
from hermes_model_llamacpp._client import LlamaClient
from hermes_model_llamacpp._config import LocalConfig
from hermes_model_llamacpp._engine import Decoding, LocalEngine
from hermes_model_llamacpp._prompt import ShortHermesFormat
from hermes_model_llamacpp._server import LlamaServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from hermes_core.models import Conversation, ConversationStart

__all__ = ["LocalModel"]


class LocalModel(Model):
    """llama.cpp on this machine: token ids in, token ids and logprobs out; no key, no network.

    When a model calls tools is a matter of policy, as a small one seldom does by itself. The first turn of a trajectory
    that has tools is one well-formed call (`forced_calls`), decoded under a grammar made from the tools' schemas. Later
    turns are free: text is the final answer, and a call that the model begins is held to its schema (`constrain`).
    """

    Config = LocalConfig

    def __init__(self, config: LocalConfig | None = None) -> None:
        self._config = config or LocalConfig()
        self._stack = AsyncExitStack()
        self._client: LlamaClient | None = None
        self._decoding: Decoding | None = None

    @property
    def name(self) -> str:
        """`local`; the file is named in each turn's metadata."""
        return "local"

    @property
    def config(self) -> LocalConfig:
        """Its settings."""
        return self._config

    @staticmethod
    def diagnose() -> Iterator[Finding]:
        """Say whether there is a model to run, for `hermes doctor`."""
        model = find_model(LocalConfig().preset)
        if model.file.is_file():
            yield Finding("local model", "ok", str(model.file))
        else:
            yield Finding("local model", "missing", f"{model.name} is not here", f"hermes models pull {model.name}")

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin one trajectory's conversation.

        Raises:
            UsageError: The model was not entered.
        """
        if self._client is None or self._decoding is None:
            raise UsageError("the model 'local' is not running", hint="use it as an async context manager")
        engine = LocalEngine(self._client, start.tools, self._decoding)
        return TokenConversation(engine, self._client.tokenizer, start, self._decoding.form)

    async def __aenter__(self) -> Self:
        """Start llama.cpp and load the model.

        Raises:
            ModelUnreachableError: There is no model, or llama.cpp cannot load it.
            ModelResponseError: The file is not a GGUF file.
            UnknownNameError: No preset has that name.
        """
        config = self._config
        path, version = self._weights()
        server = LlamaServer(
            path,
            context=config.context,
            parallel=config.parallel,
            threads=config.threads,
            log=config.log,
            tools_template=False,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(server)
            self._client = await stack.enter_async_context(
                LlamaClient(
                    server.address,
                    server.api_key,
                    parallel=config.parallel,
                    timeout_s=config.timeout_s,
                    failure=server.failure,
                )
            )
            self._stack = stack.pop_all()
        form = ShortHermesFormat() if config.prompt == "short" else HERMES_FORMAT
        self._decoding = Decoding(
            form=form if config.system_prompt is None else PromptedFormat(form, config.system_prompt),
            max_tokens=config.max_tokens,
            forced_calls=config.forced_calls,
            constrain=config.constrain,
            saved=server.saved_slots,
            model=path.name,
            policy_version=version,
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End llama.cpp; a turn that is being sampled fails."""
        self._client = self._decoding = None
        await self._stack.aclose()

    def _weights(self) -> tuple[Path, str | None]:
        """The file to load, and its version if it is a known one."""
        if self._config.path is not None:
            return self._config.path.expanduser(), None
        preset = find_model(self._config.preset)
        if not preset.file.is_file():
            raise ModelUnreachableError("no local model on this machine", hint=f"hermes models pull {preset.name}")
        return preset.file, f"sha256:{preset.sha256[:16]}"

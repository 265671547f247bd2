"""vLLM, by its completions route or its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hermes_core.config import first_variable
from hermes_core.default_plugins.models.engines._config import VllmConfig
from hermes_core.default_plugins.models.engines._model import EngineModel, room
from hermes_core.exceptions import ConfigError, ModelResponseError, TokenDataError
from hermes_core.models.tokens import Completion, FolderTokenizer, check_tokens, is_neutral

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hermes_core.default_plugins.models.engines._server import EngineServer
    from hermes_core.default_plugins.models.engines._servers import EngineServers
    from hermes_core.models import LogprobsMode, Sampling
    from hermes_core.models.tokens import TokenEngine, Tokenizer

__all__ = ["VllmModel"]

_MODEL_VARIABLES = ("ATROPOS_SERVER_MODEL", "LLM_MODEL", "LOCAL_LLM_MODEL")


class VllmModel(EngineModel):
    """vLLM. Its tokenizer is read from the model's folder: the one given, or the served one if it is here."""

    Config = VllmConfig
    name = "vllm"
    title = "vLLM"
    address = "http://127.0.0.1:8000"

    def __init__(self, config: VllmConfig | None = None) -> None:
        super().__init__(config or VllmConfig())

    async def _connect(self, servers: EngineServers) -> tuple[Callable[[], TokenEngine], Tokenizer]:
        named = cast("VllmConfig", self.config).model or first_variable(_MODEL_VARIABLES)
        cards = [_card(server, answer, named) for server, answer in await servers.ask_all("/v1/models")]
        self.model = self._agreed(str(card.get("id")) for card in cards)
        context = self._context(card.get("max_model_len") for card in cards)
        tokenizer = self._folder_tokenizer() or served_tokenizer(self.title, cards[0].get("root"))
        return partial(_Engine, servers, self, context), tokenizer


def _card(server: EngineServer, answer: Mapping[str, Any], named: str | None) -> dict[str, Any]:
    """What a server says of the model that is named, or of its first one."""
    listed = answer.get("data")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    for one in found:
        if named in (None, one.get("id")):
            return one
    known = ", ".join(str(one.get("id")) for one in found) or "none"
    raise ModelResponseError(f"vLLM at {server.url} does not serve {named!r}", hint=f"it lists: {known}")


def served_tokenizer(engine: str, folder: object) -> FolderTokenizer:
    """The tokenizer in the folder that a server serves, if it is on this machine.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(folder, str) and Path(folder).is_absolute() and (Path(folder) / "tokenizer.json").is_file():
        return FolderTokenizer(Path(folder))
    raise ConfigError(
        f"{engine} needs the model's tokenizer on this machine",
        hint="give -M tokenizer=FOLDER, with tokenizer.json and tokenizer_config.json",
    )


class _Engine:
    name = "vLLM"
    setting = (
        "a vLLM of 0.10.2 or later honours return_token_ids; an older one is started with "
        "--return-tokens-as-token-ids; --logprobs-mode processed_logprobs makes logprobs those of the sampler"
    )

    def __init__(self, servers: EngineServers, model: VllmModel, context: int | None) -> None:
        self._servers = servers
        self._before: EngineServer | None = None
        self._model = model
        self._config = cast("VllmConfig", model.config)
        self._context = context

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Completion:
        """Sample a completion."""
        settings = self._settings(len(prompt_ids), sampling)
        if self._config.api == "generate":
            path = "/inference/v1/generate"
            body: dict[str, object] = {"token_ids": list(prompt_ids), "sampling_params": settings}
        else:
            path = "/v1/completions"
            more = {"return_token_ids": True, "return_tokens_as_token_ids": True}
            body = {"prompt": list(prompt_ids), **settings, **more}
        body["model"] = self._model.model
        answer, self._before = await self._servers.complete(path, body, self._before)
        choices = answer.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            raise ModelResponseError(f"vLLM answered {path} without a choice")
        self._see_prompt(prompt_ids, choice.get("prompt_token_ids"))
        ids, logprobs = _sampled(choice, self.setting)
        check_tokens(ids, logprobs, engine=self.name, hint=self.setting)
        reason = choice.get("finish_reason")
        if reason not in ("stop", "length"):
            raise ModelResponseError(f"vLLM ended a completion by {reason!r}")
        return Completion(
            tuple(ids),
            tuple(logprobs),
            reason,
            logprobs_mode=self._mode(sampling),
            metadata={"model": self._model.model, "id": str(answer.get("id") or answer.get("request_id") or "")},
        )

    def _settings(self, prompt: int, sampling: Sampling) -> dict[str, object]:
        settings: dict[str, object] = {
            "max_tokens": room(self.name, prompt, self._context, sampling, self._config),
            "logprobs": 1,
            # Nothing but what was asked for: vLLM takes what is not said from the model's generation_config.json.
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p or 0.0,
            "repetition_penalty": 1.0,
            "skip_special_tokens": False,
        }
        given = {"temperature": sampling.temperature, "seed": sampling.seed, "stop": list(sampling.stop) or None}
        return settings | {name: value for name, value in given.items() if value is not None}

    def _see_prompt(self, prompt: tuple[int, ...], echoed: object) -> None:
        if isinstance(echoed, list) and tuple(echoed) != prompt:
            raise TokenDataError("vLLM sampled after another prompt than it was given", hint=self.setting)

    def _mode(self, sampling: Sampling) -> LogprobsMode:
        # Raw ones are vLLM's default; without anything in between they are the sampler's too.
        return "processed" if is_neutral(sampling) else self._config.logprobs_mode or "raw"


def _sampled(choice: Mapping[str, Any], hint: str) -> tuple[list[Any], list[Any]]:
    """The ids and logprobs of a choice, in any of the spellings of vLLM's versions."""
    listed = choice.get("logprobs")
    entries: list[object]
    if isinstance(listed, dict) and isinstance(listed.get("content"), list):
        entries = listed["content"]
    elif isinstance(listed, dict):
        tokens, values = listed.get("tokens"), listed.get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values):
            raise TokenDataError("vLLM returned tokens and logprobs of unequal lengths", hint=hint)
        entries = [{"token": token, "logprob": value} for token, value in zip(tokens, values, strict=True)]
    elif isinstance(listed, list):
        entries = listed
    else:
        raise TokenDataError("vLLM returned no logprobs of the sampled tokens", hint=hint)
    named = [_id(entry) for entry in entries]
    ids = choice.get("token_ids")
    if ids is None:
        if None in named:
            raise TokenDataError("vLLM returned no sampled token ids", hint=hint)
        ids = named
    if not isinstance(ids, list):
        raise TokenDataError("vLLM returned no list of sampled token ids", hint=hint)
    if any(one is not None and one != token for one, token in zip(named, ids, strict=False)):
        raise TokenDataError("vLLM returned logprobs of other tokens than it sampled", hint=hint)
    return ids, [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]


def _id(entry: object) -> int | None:
    """The id that an entry names: `token_id`, or a token spelled `token_id:N`."""
    if not isinstance(entry, dict):
        return None
    if isinstance(entry.get("token_id"), int):
        return int(entry["token_id"])
    _, found, number = str(entry.get("token", "")).partition("token_id:")
    return int(number) if found and number.isdecimal() else None

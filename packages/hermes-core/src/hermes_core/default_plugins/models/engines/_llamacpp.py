"""A llama.cpp server, wherever it runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hermes_core.default_plugins.models.engines._config import LlamacppConfig
from hermes_core.default_plugins.models.engines._model import EngineModel, room
from hermes_core.exceptions import ModelResponseError, TokenDataError
from hermes_core.models.tokens import Completion, LlamaTokenizer, check_tokens, is_neutral, listed_logprob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hermes_core.default_plugins.models.engines._server import EngineServer
    from hermes_core.default_plugins.models.engines._servers import EngineServers
    from hermes_core.models import LogprobsMode, Sampling
    from hermes_core.models.tokens import TokenEngine, Tokenizer

__all__ = ["LlamacppModel"]


class LlamacppModel(EngineModel):
    """`llama-server`: its own tokenizer and chat template, unless a folder is given."""

    Config = LlamacppConfig
    name = "llamacpp"
    title = "llama.cpp"
    address = "http://127.0.0.1:8080"

    def __init__(self, config: LlamacppConfig | None = None) -> None:
        super().__init__(config or LlamacppConfig())

    async def _connect(self, servers: EngineServers) -> tuple[Callable[[], TokenEngine], Tokenizer]:
        told = await servers.ask_all("/props")
        for server, props in told:
            if not isinstance(props.get("default_generation_settings"), dict):
                raise ModelResponseError(f"{server.url} is no llama.cpp server", hint="start llama-server there")
        self.model = self._agreed(
            str(props.get("model_alias") or props.get("model_path") or "").rpartition("/")[2] for _, props in told
        )
        context = self._context(props["default_generation_settings"].get("n_ctx") for _, props in told)
        own = LlamaTokenizer(servers.post)
        eos = told[0][1].get("eos_token")
        ends = await own.encode(eos) if isinstance(eos, str) and eos else ()
        tokenizer = self._folder_tokenizer() or LlamaTokenizer(servers.post, frozenset(ends if len(ends) == 1 else ()))
        return partial(_Engine, servers, self, context, own), tokenizer


class _Engine:
    """`/completion`, not streamed: a stream leaves out the ids of tokens that end inside a character."""

    name = "llama.cpp"
    setting = "a newer llama-server honours return_tokens and n_probs in POST /completion"

    def __init__(
        self, servers: EngineServers, model: LlamacppModel, context: int | None, tokenizer: LlamaTokenizer
    ) -> None:
        self._servers = servers
        self._before: EngineServer | None = None
        self._model = model
        self._context = context
        self._tokenizer = tokenizer

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Completion:
        """Sample a completion."""
        body: dict[str, object] = {
            "prompt": list(prompt_ids),
            "n_predict": room(self.name, len(prompt_ids), self._context, sampling, self._model.config),
            "return_tokens": True,
            "n_probs": 1,
            "post_sampling_probs": False,
            "cache_prompt": True,
            # Nothing but what was asked for: llama.cpp's defaults also cut by top-k and min-p.
            "samplers": ["temperature", "top_k", "top_p", "min_p"],
            "top_k": sampling.top_k or 0,
            "min_p": sampling.min_p or 0.0,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "stop": list(sampling.stop),
        }
        if sampling.temperature is not None:
            body["temperature"] = sampling.temperature
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        answer, self._before = await self._servers.complete("/completion", body, self._before)
        ids = answer.get("tokens")
        if not isinstance(ids, list) or not ids:
            raise TokenDataError("llama.cpp returned no sampled token ids", hint=self.setting)
        logprobs = await self._logprobs(prompt_ids, ids, answer.get("completion_probabilities"))
        # A stop string has ended it before its tokens end, and special tokens are not in the text.
        text = answer.get("content")
        return Completion(
            tuple(ids),
            logprobs,
            "length" if answer.get("stop_type") == "limit" else "stop",
            logprobs_mode=self._mode(sampling),
            text=text if isinstance(text, str) else None,
            metadata={"model": self._model.model},
        )

    def _mode(self, sampling: Sampling) -> LogprobsMode:
        return self._model.config.logprobs_mode or ("processed" if is_neutral(sampling) else "raw")

    async def _logprobs(self, prompt: tuple[int, ...], ids: list[int], entries: object) -> tuple[float, ...]:
        """Those that are listed, and the rest asked for one by one.

        None is listed for a token that ends inside a character (the parts of an emoji) or belongs to a stop string.
        """
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
            raise TokenDataError("llama.cpp returned no logprobs of the sampled tokens", hint=self.setting)
        places = _places([entry.get("id") for entry in entries], ids)
        if places is None:
            raise TokenDataError("llama.cpp returned logprobs of other tokens than it sampled", hint=self.setting)
        known: dict[int, Any] = {at: entries[number].get("logprob") for number, at in places.items()}
        check_tokens([ids[at] for at in known], list(known.values()), engine=self.name, hint=self.setting)
        missing = [at for at in range(len(ids)) if at not in known]
        letter = (await self._tokenizer.encode("a", special=False))[-1] if missing else 0
        fields: Mapping[str, object] = {}
        for at in missing:
            known[at] = await listed_logprob(self._servers.post, (*prompt, *ids[:at]), ids[at], letter, fields)
        return tuple(known[at] for at in range(len(ids)))


def _places(listed: Sequence[object], ids: Sequence[int]) -> dict[int, int] | None:
    """Which token each entry belongs to, in order, as far as only one is possible; None if there is no way at all."""
    first = _leftmost(listed, ids)
    last = _leftmost(listed[::-1], ids[::-1])
    if first is None or last is None:
        return None
    end, count = len(ids) - 1, len(listed) - 1
    return {number: at for number, at in enumerate(first) if at == end - last[count - number]}


def _leftmost(listed: Sequence[object], ids: Sequence[int]) -> list[int] | None:
    found: list[int] = []
    at = 0
    for one in listed:
        while at < len(ids) and ids[at] != one:
            at += 1
        if at == len(ids):
            return None
        found.append(at)
        at += 1
    return found

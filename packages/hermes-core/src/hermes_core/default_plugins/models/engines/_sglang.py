"""SGLang."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hermes_core.default_plugins.models.engines._config import SglangConfig
from hermes_core.default_plugins.models.engines._model import EngineModel, room
from hermes_core.default_plugins.models.engines._vllm import served_tokenizer
from hermes_core.exceptions import ModelResponseError, TokenDataError
from hermes_core.models.tokens import Completion, check_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hermes_core.default_plugins.models.engines._server import EngineServer
    from hermes_core.default_plugins.models.engines._servers import EngineServers
    from hermes_core.models import LogprobsMode, Sampling
    from hermes_core.models.tokens import TokenEngine, Tokenizer

__all__ = ["SglangModel"]


class SglangModel(EngineModel):
    """SGLang. Its tokenizer is read from the model's folder: the one given, or the served one if it is here."""

    Config = SglangConfig
    name = "sglang"
    title = "SGLang"
    address = "http://127.0.0.1:30000"

    def __init__(self, config: SglangConfig | None = None) -> None:
        super().__init__(config or SglangConfig())

    async def _connect(self, servers: EngineServers) -> tuple[Callable[[], TokenEngine], Tokenizer]:
        told = await servers.ask_all("/get_model_info")
        for server, info in told:
            if not isinstance(info.get("model_path"), str):
                raise ModelResponseError(f"{server.url} is no SGLang server", hint="start SGLang there")
        self.model = self._agreed(info["model_path"].rstrip("/").rpartition("/")[2] for _, info in told)
        served = told[0][1].get("tokenizer_path") or told[0][1]["model_path"]
        return partial(_Engine, servers, self), self._folder_tokenizer() or served_tokenizer(self.title, served)


class _Engine:
    name = "SGLang"
    setting = "see that POST /generate honours return_logprob (it is sent with every request)"

    def __init__(self, servers: EngineServers, model: SglangModel) -> None:
        self._servers = servers
        self._before: EngineServer | None = None
        self._model = model

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Completion:
        """Sample a completion."""
        config = self._model.config
        parameters: dict[str, object] = {
            "max_new_tokens": room(self.name, len(prompt_ids), config.context, sampling, config),
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p or 0.0,
            "repetition_penalty": 1.0,
            "skip_special_tokens": False,
        }
        given = {
            "temperature": sampling.temperature,
            "sampling_seed": sampling.seed,
            "stop": list(sampling.stop) or None,
        }
        parameters |= {name: value for name, value in given.items() if value is not None}
        body = {"input_ids": list(prompt_ids), "sampling_params": parameters, "return_logprob": True}
        answer, self._before = await self._servers.complete("/generate", body, self._before)
        meta = answer.get("meta_info")
        if not isinstance(meta, dict):
            raise ModelResponseError("SGLang answered /generate without meta_info")
        ids, logprobs = self._sampled(meta)
        self._see(ids, answer.get("output_ids"), meta)
        check_tokens(ids, logprobs, engine=self.name, hint=self.setting)
        version = meta.get("weight_version")
        return Completion(
            tuple(ids),
            tuple(logprobs),
            _finish_reason(meta),
            logprobs_mode=self._mode(sampling),
            policy_version=None if version is None else str(version),
            metadata={"model": self._model.model, "id": str(meta.get("id") or "")},
        )

    def _sampled(self, meta: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        entries = meta.get("output_token_logprobs")
        if not isinstance(entries, list) or not entries:
            raise TokenDataError("SGLang returned no output_token_logprobs", hint=self.setting)
        if not all(isinstance(entry, list) and len(entry) >= 2 for entry in entries):
            raise TokenDataError("SGLang returned output_token_logprobs without token ids", hint=self.setting)
        return [entry[1] for entry in entries], [entry[0] for entry in entries]

    def _see(self, ids: list[Any], output: object, meta: Mapping[str, Any]) -> None:
        """Compare with what else the answer says about the tokens."""
        count = meta.get("completion_tokens")
        if isinstance(count, int) and count != len(ids):
            raise TokenDataError(f"SGLang sampled {count} tokens and returned {len(ids)} logprobs", hint=self.setting)
        if isinstance(output, list) and ids[: len(output)] != output:
            raise TokenDataError("SGLang returned logprobs of other tokens than it sampled", hint=self.setting)

    def _mode(self, sampling: Sampling) -> LogprobsMode:
        """SGLang's are taken after temperature, and before top-p cuts; greedy decoding has the model's own."""
        if self._model.config.logprobs_mode is not None:
            return self._model.config.logprobs_mode
        if sampling.temperature is None or sampling.truncates:
            return "unknown"
        return "processed" if sampling.temperature > 0 else "raw"


def _finish_reason(meta: Mapping[str, Any]) -> Any:  # noqa: ANN401 - narrowed by what it returns
    found = meta.get("finish_reason")
    reason = found.get("type") if isinstance(found, dict) else found
    if reason not in ("stop", "length"):
        said = found.get("message") if isinstance(found, dict) else None
        raise ModelResponseError(f"SGLang ended a completion by {reason!r}" + (f": {said}" if said else ""))
    return reason

"""llama.cpp as one trajectory's engine: its slot, and when it must call a tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_core.models.tokens import Completion, is_neutral
from hermes_model_llamacpp._completion import complete
from hermes_model_llamacpp._grammar import CALL_END, CALL_START, calls_grammar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_core.execution import ToolDefinition
    from hermes_core.models import Sampling, ToolCallFormat
    from hermes_model_llamacpp._client import LlamaClient

__all__ = ["Decoding", "LocalEngine"]

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


class LocalEngine:
    """Samples the turns of one trajectory.

    Logprobs are the model's own (llama.cpp's `post_sampling_probs` is false): of the softmax of the raw logits at
    temperature 1, before temperature, top-p, stop strings and grammar. They are `processed`, which is of the sampling
    distribution, exactly when nothing comes between: temperature 1, no top-p below 1, no grammar. The grammar of a
    forced call sets `constrained`, and so does a call that the model began by itself when it is held to its schema.
    """

    name = "llama.cpp"
    setting = "a newer llama.cpp (xllamacpp) honours return_tokens and n_probs"

    def __init__(self, client: LlamaClient, tools: Sequence[ToolDefinition], decoding: Decoding) -> None:
        self._client = client
        self._tools = tools
        self._decoding = decoding
        self._slot: int | None = None
        self._turns = 0

    async def generate(self, prompt_ids: tuple[int, ...], sampling: Sampling) -> Completion:
        """Sample the next turn.

        Raises:
            ContextExceededError: The conversation does not fit.
            TokenDataError: The server gave no exact tokens.
            ModelError: The server failed.
        """
        forced = bool(self._tools) and self._turns < self._decoding.forced_calls
        settings = self._settings(sampling, forced=forced)
        found = await complete(
            self._client, prompt_ids, settings, saved=self._decoding.saved, preferred_slot=self._slot
        )
        self._slot = found.slot
        self._turns += 1
        constrained = forced or ("grammar" in settings and CALL_START in found.text)
        return Completion(
            found.ids,
            found.logprobs,
            "length" if found.stop_type == "limit" else "stop",
            logprobs_mode="processed" if is_neutral(sampling) and not constrained else "raw",
            text=found.text,
            constrained=constrained,
            policy_version=self._decoding.policy_version,
            metadata={"model": self._decoding.model, "cached_prompt_tokens": found.cached},
        )

    def _settings(self, sampling: Sampling, *, forced: bool) -> dict[str, object]:
        """The request's fields besides the prompt."""
        decoding = self._decoding
        max_tokens = sampling.max_tokens or decoding.max_tokens
        settings: dict[str, object] = {
            "n_predict": max_tokens,
            # Nothing but what was asked for: llama.cpp's defaults also cut by top-k and min-p.
            "samplers": ["temperature", "top_k", "top_p", "min_p"],
            "top_k": sampling.top_k or 0,
            "min_p": sampling.min_p or 0.0,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "seed": -1 if sampling.seed is None else sampling.seed,
            "stop": list(sampling.stop),
            "timings_per_token": True,  # among them each streamed token's position
        }
        if sampling.temperature is not None:
            settings["temperature"] = sampling.temperature
        if self._tools and (forced or decoding.constrain):
            settings["grammar"] = calls_grammar(self._tools, max_tokens=max_tokens, single=forced)
            settings["preserved_tokens"] = [CALL_START, CALL_END]
            if not forced:
                settings["grammar_lazy"] = True
                settings["grammar_triggers"] = [{"type": _WORD_TRIGGER, "value": CALL_START}]
        return settings

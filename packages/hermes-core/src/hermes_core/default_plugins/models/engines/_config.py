"""Settings of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from hermes_core.default_plugins.models._addresses import Addresses

__all__ = ["EngineConfig", "LlamacppConfig", "SglangConfig", "VllmConfig"]


class EngineConfig(BaseModel):
    """What all engines need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: Addresses = None
    """Where the server is, with or without `/v1`; several, as a list or separated by commas, share the requests, and
    must serve the same model. By default from ATROPOS_SERVER_BASE_URL, LOCAL_LLM_BASE_URL, LLM_BASE_URL, else the
    engine's usual port on this machine."""

    api_key: SecretStr | None = None
    """Sent as a bearer token. By default from ATROPOS_SERVER_API_KEY, LOCAL_LLM_API_KEY, LLM_API_KEY, else none."""

    tokenizer: Path | None = None
    """A model's folder with tokenizer.json and tokenizer_config.json, or a model of the hub that is in the hub's cache;
    needs `hermes-core[tokenizers]`. By default from ATROPOS_TOKENIZER_NAME, else the server's."""

    tool_call_format: str = "hermes"
    """How tools are told, and how calls are read out of the text."""

    system_prompt: str | None = None
    """Instead of the format's own prompt, where tools are enabled; `{tools}` in it becomes the tools, one line of JSON
    each. What the environment says follows it."""

    history: Literal["append", "template"] = "append"
    """`append`: later prompts are the ids so far and what came since, one segment with all earlier thinking.
    `template`: the chat template renders every prompt anew, as a deployed model sees it; where that changes what came
    before, a new segment begins."""

    max_tokens: int = Field(default=4096, ge=1)
    """Most tokens of one turn, where the run's sampling does not say; never more than the context has room for."""

    context: int | None = Field(default=None, ge=16)
    """Tokens of one trajectory, prompt and completion together; by default what the server says."""

    logprobs_mode: Literal["raw", "processed"] | None = None
    """Of which distribution the server's logprobs are: the model's own (`raw`) or the one sampled from (`processed`).
    By default as the engine does it unless it is told otherwise."""

    timeout_s: float = Field(default=300.0, gt=0)
    """Seconds that one answer may take; a request that takes longer is a failure."""

    max_retries: int = Field(default=4, ge=0)
    """How often a request is tried again after 429, 5xx, or a broken connection; after a deadline that passed only
    once, and at another server."""

    max_concurrency: int = Field(default=256, ge=1)
    """Most requests at once to one server."""

    heartbeat_s: float = Field(default=15.0, ge=0)
    """A completion that takes longer is logged as still waited for, again and again after so many seconds; 0 for
    never."""

    debug_dir: Path | None = None
    """Write each request for a completion and its answer to a file in this folder, without the key."""


class LlamacppConfig(EngineConfig):
    """Settings of `llamacpp`. Without `tokenizer` the server's own tokenizer and template are used."""


class VllmConfig(EngineConfig):
    """Settings of `vllm`."""

    model: str | None = None
    """The model's id. By default from ATROPOS_SERVER_MODEL, LLM_MODEL, LOCAL_LLM_MODEL, else the first that the server
    lists."""

    api: Literal["completions", "generate"] = "completions"
    """`/v1/completions`, or vLLM's own `/inference/v1/generate`."""


class SglangConfig(EngineConfig):
    """Settings of `sglang`."""

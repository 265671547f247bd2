"""Settings of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["EngineConfig", "LlamacppConfig", "SglangConfig", "VllmConfig"]


class EngineConfig(BaseModel):
    """What all engines need."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    """Where the server is."""

    api_key: SecretStr | None = None
    """Sent as a bearer token; by default none."""

    tokenizer: Path | None = None
    """A model's folder with tokenizer.json and tokenizer_config.json; needs `hermes-core[tokenizers]`."""

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
    """How often a request is tried again after 429, 5xx, or a broken connection."""

    max_concurrency: int = Field(default=256, ge=1)
    """Most requests at once."""

    heartbeat_s: float = Field(default=15.0, ge=0)
    """A completion that takes longer is logged as still waited for, again and again after so many seconds; 0 for
    never."""

    debug_dir: Path | None = None
    """Write each request for a completion and its answer to a file in this folder, without the key."""


class LlamacppConfig(EngineConfig):
    """Settings of `llamacpp`. Without `tokenizer` the server's own tokenizer and template are used."""

    base_url: str = "http://127.0.0.1:8080"
    """Where llama-server is."""


class VllmConfig(EngineConfig):
    """Settings of `vllm`."""

    base_url: str = "http://127.0.0.1:8000"
    """Where vLLM is."""

    model: str | None = None
    """The model's id; by default the first that the server lists."""

    api: Literal["completions", "generate"] = "completions"
    """`/v1/completions`, or vLLM's own `/inference/v1/generate`."""


class SglangConfig(EngineConfig):
    """Settings of `sglang`."""

    base_url: str = "http://127.0.0.1:30000"
    """Where SGLang is."""

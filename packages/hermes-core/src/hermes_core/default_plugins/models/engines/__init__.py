"""Engines that return the tokens they sampled: llama.cpp, vLLM and SGLang, wherever they run."""

from hermes_core.default_plugins.models.engines._config import (
    EngineConfig,
    LlamacppConfig,
    SglangConfig,
    VllmConfig,
)
from hermes_core.default_plugins.models.engines._llamacpp import LlamacppModel
from hermes_core.default_plugins.models.engines._sglang import SglangModel
from hermes_core.default_plugins.models.engines._vllm import VllmModel

__all__ = [
    "EngineConfig",
    "LlamacppConfig",
    "LlamacppModel",
    "SglangConfig",
    "SglangModel",
    "VllmConfig",
    "VllmModel",
]

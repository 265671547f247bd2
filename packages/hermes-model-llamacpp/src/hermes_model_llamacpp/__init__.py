"""The model `local`: llama.cpp on this machine, exact tokens, no key and no network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_model_llamacpp._config import LocalConfig as LocalConfig
    from hermes_model_llamacpp._model import LocalModel as LocalModel
    from hermes_model_llamacpp._server import LlamaServer as LlamaServer

__all__ = ["LlamaServer", "LocalConfig", "LocalModel"]

# Imported when first used: the plugin module lives in this package and must cost nothing.
_HOMES = {"LlamaServer": "_server", "LocalConfig": "_config", "LocalModel": "_model"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

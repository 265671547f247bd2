"""Models that need no engine of their own. Each is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.default_plugins.models.engines import LlamacppModel as LlamacppModel
    from hermes_core.default_plugins.models.engines import SglangModel as SglangModel
    from hermes_core.default_plugins.models.engines import VllmModel as VllmModel
    from hermes_core.default_plugins.models.openai import NousModel as NousModel
    from hermes_core.default_plugins.models.openai import OpenAIModel as OpenAIModel
    from hermes_core.default_plugins.models.openai import OpenRouterModel as OpenRouterModel
    from hermes_core.default_plugins.models.oracle import OracleModel as OracleModel
    from hermes_core.default_plugins.models.replay import ReplayModel as ReplayModel
    from hermes_core.default_plugins.models.scripted import ScriptedModel as ScriptedModel

__all__ = [
    "LlamacppModel",
    "NousModel",
    "OpenAIModel",
    "OpenRouterModel",
    "OracleModel",
    "ReplayModel",
    "ScriptedModel",
    "SglangModel",
    "VllmModel",
]

# The OpenAI SDK alone takes a second to import.
_HOMES = {
    "LlamacppModel": "engines",
    "NousModel": "openai",
    "OpenAIModel": "openai",
    "OpenRouterModel": "openai",
    "OracleModel": "oracle",
    "ReplayModel": "replay",
    "ScriptedModel": "scripted",
    "SglangModel": "engines",
    "VllmModel": "engines",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""`openai`: any OpenAI-compatible chat endpoint; `openrouter` and `nous`: two services that are one."""

from hermes_core.default_plugins.models.openai._config import OpenAIConfig
from hermes_core.default_plugins.models.openai._model import NousModel, OpenAIModel, OpenRouterModel

__all__ = ["NousModel", "OpenAIConfig", "OpenAIModel", "OpenRouterModel"]

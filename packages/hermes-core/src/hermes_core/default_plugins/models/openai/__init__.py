"""`openai`: any OpenAI-compatible chat endpoint."""

from hermes_core.default_plugins.models.openai._config import OpenAIConfig
from hermes_core.default_plugins.models.openai._model import OpenAIModel

__all__ = ["OpenAIConfig", "OpenAIModel"]

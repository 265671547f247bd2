"""Text forms of tool calls, each as a family of models was trained on it."""

from hermes_core.default_plugins.tool_call_formats._deepseek import DEEPSEEK_V3, DEEPSEEK_V31
from hermes_core.default_plugins.tool_call_formats._glm import GLM45
from hermes_core.default_plugins.tool_call_formats._kimi_k2 import KIMI_K2
from hermes_core.default_plugins.tool_call_formats._llama3_json import LLAMA3_JSON
from hermes_core.default_plugins.tool_call_formats._mistral import MISTRAL, MISTRAL_V11
from hermes_core.default_plugins.tool_call_formats._pythonic import LFM2, PYTHONIC
from hermes_core.default_plugins.tool_call_formats._qwen3_coder import QWEN3_CODER

__all__ = [
    "DEEPSEEK_V3",
    "DEEPSEEK_V31",
    "GLM45",
    "KIMI_K2",
    "LFM2",
    "LLAMA3_JSON",
    "MISTRAL",
    "MISTRAL_V11",
    "PYTHONIC",
    "QWEN3_CODER",
]

"""Models: chat in, assistant turn out; with exact tokens where the engine returns them."""

from hermes_core.models._arguments import (
    call_of_object,
    decode_json_object,
    decode_json_prefix,
    decode_json_value,
    skip_whitespace,
)
from hermes_core.models._format import ParsedText, ToolCallFormat, plain_messages
from hermes_core.models._hermes_format import HERMES_FORMAT, HermesFormat
from hermes_core.models._marked_format import Findings, MarkedFormat
from hermes_core.models._message import Message, Role
from hermes_core.models._prompted_format import PromptedFormat
from hermes_core.models._protocol import Conversation, ConversationStart, Model
from hermes_core.models._tool_prompt import block_results, harmless, tool_prompt
from hermes_core.models._turn import (
    AssistantTurn,
    FinishReason,
    LogprobsMode,
    MalformedCall,
    Sampling,
    TurnTokens,
    Usage,
)

__all__ = [
    "HERMES_FORMAT",
    "AssistantTurn",
    "Conversation",
    "ConversationStart",
    "Findings",
    "FinishReason",
    "HermesFormat",
    "LogprobsMode",
    "MalformedCall",
    "MarkedFormat",
    "Message",
    "Model",
    "ParsedText",
    "PromptedFormat",
    "Role",
    "Sampling",
    "ToolCallFormat",
    "TurnTokens",
    "Usage",
    "block_results",
    "call_of_object",
    "decode_json_object",
    "decode_json_prefix",
    "decode_json_value",
    "harmless",
    "plain_messages",
    "skip_whitespace",
    "tool_prompt",
]

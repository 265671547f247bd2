"""Models: chat in, assistant turn out; with exact tokens where the engine returns them."""

from hermes_core.models._arguments import decode_json_object
from hermes_core.models._format import ParsedText, ToolCallFormat, plain_messages
from hermes_core.models._hermes_format import HERMES_FORMAT, HermesFormat
from hermes_core.models._message import Message, Role
from hermes_core.models._protocol import Conversation, ConversationStart, Model
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
    "FinishReason",
    "HermesFormat",
    "LogprobsMode",
    "MalformedCall",
    "Message",
    "Model",
    "ParsedText",
    "Role",
    "Sampling",
    "ToolCallFormat",
    "TurnTokens",
    "Usage",
    "decode_json_object",
    "plain_messages",
]

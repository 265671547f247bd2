"""Fakes, and the contract suites that plugin authors run."""

from hermes_core.testing._chat_server import ChatAnswer, FakeChatServer, completion, streamed
from hermes_core.testing._sums import SumsConfig, SumsEnvironment, sums_tools
from hermes_core.testing._token_server import EngineForm, FakeTokenServer, token_completion
from hermes_core.testing._toy_tokenizer import ToyTokenizer

__all__ = [
    "ChatAnswer",
    "EngineForm",
    "FakeChatServer",
    "FakeTokenServer",
    "SumsConfig",
    "SumsEnvironment",
    "ToyTokenizer",
    "completion",
    "streamed",
    "sums_tools",
    "token_completion",
]

"""Fakes, and the contract suites that plugin authors run."""

from hermes_core.testing._chat_server import ChatAnswer, FakeChatServer, completion, streamed
from hermes_core.testing._sums import SumsConfig, SumsEnvironment, sums_tools

__all__ = ["ChatAnswer", "FakeChatServer", "SumsConfig", "SumsEnvironment", "completion", "streamed", "sums_tools"]

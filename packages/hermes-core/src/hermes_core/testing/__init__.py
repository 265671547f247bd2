"""Fakes, and the contract suites that plugin authors run."""

from hermes_core.testing._chat_server import ChatAnswer, FakeChatServer, completion

__all__ = ["ChatAnswer", "FakeChatServer", "completion"]

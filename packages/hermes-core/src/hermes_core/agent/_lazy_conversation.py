"""A conversation that is opened by its first turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hermes_core.models import AssistantTurn, Conversation, Message

__all__ = ["LazyConversation"]


class LazyConversation:
    """Lets an agent be made synchronously although its model must be started first.

    Args:
        open_conversation: Starts what is needed and begins the conversation; called once, by the first turn.
    """

    def __init__(self, open_conversation: Callable[[], Awaitable[Conversation]]) -> None:
        self._open = open_conversation
        self._conversation: Conversation | None = None

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Say the next assistant turn."""
        if self._conversation is None:
            self._conversation = await self._open()
        return await self._conversation.respond(messages, max_tokens=max_tokens)

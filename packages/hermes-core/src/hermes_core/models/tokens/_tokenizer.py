"""The contract of a tokenizer with its chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Tokenizer"]


class Tokenizer(Protocol):
    """Text to ids and back, and messages to text. It may be a server's, hence async."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end a turn, as far as they are known."""

    async def encode(self, text: str, *, special: bool = True, opening: bool = False) -> tuple[int, ...]:
        """Encode text.

        Args:
            text: What to encode.
            special: Read the spelling of special tokens as these tokens.
            opening: Add what the tokenizer puts before a sequence.
        """

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens spelled out."""

    async def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages (role and content) by the chat template, ready for the next assistant turn."""

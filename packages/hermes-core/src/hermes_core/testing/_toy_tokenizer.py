"""A tokenizer small enough to reason about: one token for each character, and one for each pair of ASCII characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ToyTokenizer"]

_SPECIALS = {"<|im_start|>": 0, "<|im_end|>": 1}
_SPELLED = {number: text for text, number in _SPECIALS.items()}
_SPECIAL = re.compile("(" + "|".join(map(re.escape, _SPECIALS)) + ")")
_THINKING = re.compile(r"<think>.*?</think>\s*", re.DOTALL)
_SINGLE, _PAIR = 10, 2_000_000


class ToyTokenizer:
    """ChatML over pairs of characters. Text has many encodings, of which `encode` gives the one with most pairs.

    Args:
        template: `keep`: earlier turns stay as they are. `forget`: it drops the thinking of all turns but those that
            follow the last user message that is no tool result, as Qwen3's does. `rewrite`: it changes all thinking.
    """

    eos_ids = frozenset({_SPECIALS["<|im_end|>"]})

    def __init__(self, template: Literal["keep", "forget", "rewrite"] = "keep") -> None:
        self.template = template

    async def encode(self, text: str, *, special: bool = True, opening: bool = False) -> tuple[int, ...]:
        """Encode text."""
        return self.ids(text, special=special)

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""
        return self.text(ids)

    async def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages as ChatML."""
        return self.prompt(messages)

    def ids(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Encode text, synchronously."""
        found: list[int] = []
        for piece in _SPECIAL.split(text) if special else [text]:
            if special and piece in _SPECIALS:
                found.append(_SPECIALS[piece])
            else:
                found.extend(self.split(piece, [True] * len(piece)))
        return tuple(found)

    def split(self, text: str, pairs: Sequence[bool]) -> tuple[int, ...]:
        """One of the encodings of a text.

        Args:
            text: The text, without special tokens.
            pairs: For each token in turn whether it is a pair, if it can be.
        """
        found: list[int] = []
        at, wishes = 0, iter(pairs)
        while at < len(text):
            both = text[at : at + 2]
            if next(wishes, True) and len(both) == 2 and both.isascii():
                found.append(_PAIR + ord(both[0]) * 128 + ord(both[1]))
                at += 2
            else:
                found.append(_SINGLE + ord(text[at]))
                at += 1
        return tuple(found)

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids, synchronously."""
        return "".join(map(_spelled, ids))

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Write messages, synchronously."""
        asked = [
            at
            for at, message in enumerate(messages)
            if message["role"] == "user" and not message["content"].startswith("<tool_response>")
        ]
        told = []
        for at, message in enumerate(messages):
            content = message["content"]
            if message["role"] == "assistant" and self.template == "forget" and asked and at < asked[-1]:
                content = _THINKING.sub("", content)
            if message["role"] == "assistant" and self.template == "rewrite":
                content = content.replace("<think>", "<think>\n")
            told.append(f"<|im_start|>{message['role']}\n{content}<|im_end|>\n")
        return "".join(told) + "<|im_start|>assistant\n"


def _spelled(one: int) -> str:
    if one in _SPELLED:
        return _SPELLED[one]
    if one >= _PAIR:
        return chr((one - _PAIR) // 128) + chr((one - _PAIR) % 128)
    return chr(one - _SINGLE)

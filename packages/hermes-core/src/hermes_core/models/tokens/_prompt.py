"""Prompts as token ids: rendered once, then only ever extended."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models._message import Message
    from hermes_core.models.tokens._tokenizer import Tokenizer

__all__ = ["opening_ids", "suffix_ids"]


async def opening_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[int, ...]:
    """Encode a conversation from its start, ready for the assistant's next turn.

    Args:
        tokenizer: Tokenizer and template.
        messages: Plain messages: role and content only.
    """
    told, hidden = await _hide_specials(tokenizer, messages)
    return await _encode(tokenizer, await tokenizer.render(told), hidden, opening=True)


async def suffix_ids(tokenizer: Tokenizer, messages: Sequence[Message], last_sampled: int) -> tuple[int, ...] | None:
    """Encode what comes between an assistant turn, as it was sampled, and the next one.

    It is what the template renders behind a dummy turn, from the token that ends a turn on; which is left out if it was
    sampled.

    Args:
        tokenizer: Tokenizer and template.
        messages: The plain messages that follow the turn.
        last_sampled: The turn's last token.

    Returns:
        The ids to append; None if the template does not keep an earlier turn as it is.
    """
    dummy = f"turn{secrets.token_hex(8)}"
    told, hidden = await _hide_specials(tokenizer, messages)
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": dummy}]
    _, found, rest = (await tokenizer.render([*before, *told])).partition(dummy)
    if not found:
        return None
    ids = await _encode(tokenizer, rest, hidden, opening=False)
    end = await _turn_end(tokenizer, ids)
    return ids[end + 1 :] if ids[end : end + 1] == (last_sampled,) else ids[end:]


async def _turn_end(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """Where the turn ends in what follows its text; 0 if no token that is known for it stands there.

    Templates may write white space before it, which the model does not sample.
    """
    for at, one in enumerate(ids):
        if one in tokenizer.eos_ids:
            return at if not at or not (await tokenizer.decode(ids[:at])).strip() else 0
    return 0


async def _hide_specials(
    tokenizer: Tokenizer, messages: Sequence[Message]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Replace contents that spell a special token by a placeholder: a tool's output must not be able to end its turn.

    Returns:
        The messages for the template, and each placeholder's content.
    """
    told: list[dict[str, str]] = []
    hidden: dict[str, str] = {}
    for message in messages:
        content = message.content
        if content and await tokenizer.encode(content) != await tokenizer.encode(content, special=False):
            placeholder = f"content{secrets.token_hex(8)}"
            hidden[placeholder] = content
            content = placeholder
        told.append({"role": message.role, "content": content})
    return told, hidden


async def _encode(tokenizer: Tokenizer, text: str, hidden: dict[str, str], *, opening: bool) -> tuple[int, ...]:
    pieces = re.split("|".join(hidden), text) if hidden else [text]
    contents = re.findall("|".join(hidden), text) if hidden else []
    ids = list(await _encode_opening(tokenizer, pieces[0]) if opening else await tokenizer.encode(pieces[0]))
    for placeholder, piece in zip(contents, pieces[1:], strict=True):
        ids += await tokenizer.encode(hidden[placeholder], special=False)
        if piece:
            ids += await tokenizer.encode(piece)
    return tuple(ids)


async def _encode_opening(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """Encode the start of a sequence, with one beginning-of-sequence token where the tokenizer wants one."""
    bare = await tokenizer.encode(text)
    opened = await tokenizer.encode(text, opening=True)
    doubled = opened[1:] == bare and opened[:1] == bare[:1]
    return bare if doubled else opened

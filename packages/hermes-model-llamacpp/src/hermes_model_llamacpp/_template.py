"""Prompts as token ids: rendered once, then only ever extended."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hermes_core.models import Message
    from hermes_model_llamacpp._client import LlamaClient

__all__ = ["opening_ids", "suffix_ids"]


async def opening_ids(client: LlamaClient, messages: Sequence[Message]) -> tuple[int, ...]:
    """Encode a conversation from its start, ready for the assistant's next turn.

    Args:
        client: The server that knows template and tokenizer.
        messages: Plain messages: role and content only.
    """
    told, hidden = await _hide_specials(client, messages)
    return await _encode(client, await client.render(told), hidden, opening=True)


async def suffix_ids(client: LlamaClient, messages: Sequence[Message], last_sampled: int) -> tuple[int, ...] | None:
    """Encode what comes between an assistant turn, as it was sampled, and the next one.

    It is what the template renders behind a dummy turn. Its first token ends a turn, and is left out if it was sampled.

    Args:
        client: The server that knows template and tokenizer.
        messages: The plain messages that follow the turn.
        last_sampled: The turn's last token.

    Returns:
        The ids to append; None if the template does not keep an earlier turn as it is.
    """
    dummy = f"turn{secrets.token_hex(8)}"
    told, hidden = await _hide_specials(client, messages)
    before = [{"role": "user", "content": "x"}, {"role": "assistant", "content": dummy}]
    _, found, rest = (await client.render([*before, *told])).partition(dummy)
    if not found:
        return None
    ids = await _encode(client, rest, hidden, opening=False)
    return ids[1:] if ids[:1] == (last_sampled,) else ids


async def _hide_specials(
    client: LlamaClient, messages: Sequence[Message]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """Replace contents that spell a special token by a placeholder: a tool's output must not be able to end its turn.

    Returns:
        The messages for the template, and each placeholder's content.
    """
    told: list[dict[str, str]] = []
    hidden: dict[str, str] = {}
    for message in messages:
        content = message.content
        if content and await client.tokenize(content) != await client.tokenize(content, special=False):
            placeholder = f"content{secrets.token_hex(8)}"
            hidden[placeholder] = content
            content = placeholder
        told.append({"role": message.role, "content": content})
    return told, hidden


async def _encode(client: LlamaClient, text: str, hidden: dict[str, str], *, opening: bool) -> tuple[int, ...]:
    pieces = re.split("|".join(hidden), text) if hidden else [text]
    contents = re.findall("|".join(hidden), text) if hidden else []
    ids = list(await _encode_opening(client, pieces[0]) if opening else await client.tokenize(pieces[0]))
    for placeholder, piece in zip(contents, pieces[1:], strict=True):
        ids += await client.tokenize(hidden[placeholder], special=False)
        if piece:
            ids += await client.tokenize(piece)
    return tuple(ids)


async def _encode_opening(client: LlamaClient, text: str) -> tuple[int, ...]:
    """Encode the start of a sequence, with one beginning-of-sequence token where the tokenizer wants one."""
    bare = await client.tokenize(text)
    opened = await client.tokenize(text, opening=True)
    doubled = opened[1:] == bare and opened[:1] == bare[:1]
    return bare if doubled else opened

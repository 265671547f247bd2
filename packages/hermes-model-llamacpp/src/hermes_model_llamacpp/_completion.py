"""A completion with every sampled token and its logprob, whatever was streamed."""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import TokenDataError
from hermes_core.models.tokens import listed_logprob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hermes_model_llamacpp._client import LlamaClient, Streamed

__all__ = ["LlamaCompletion", "complete"]


@dataclass(frozen=True, slots=True)
class LlamaCompletion:
    """What was sampled for one prompt.

    Attributes:
        text: Without stop strings and special tokens.
        ids: Every sampled token, an end-of-sequence token included.
        logprobs: As long as `ids`: natural logs of the model's own distribution.
        stop_type: `eos`, `word` or `limit`.
        cached: Tokens of the prompt that the server had read before.
        slot: The server's slot that holds the sequence.
    """

    text: str
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stop_type: str
    cached: int
    slot: int


async def complete(
    client: LlamaClient,
    prompt: Sequence[int],
    settings: Mapping[str, object],
    *,
    saved: Path | None,
    preferred_slot: int | None = None,
) -> LlamaCompletion:
    """Sample a completion and see that its tokens are complete.

    llama.cpp streams neither id nor logprob of a token that ends inside a UTF-8 character (the parts of an emoji). The
    ids are then read from the slot's saved state, and the logprobs asked for one by one.

    Args:
        client: The server.
        prompt: The prompt's ids.
        settings: Further fields of the request.
        saved: The folder in which the server saves slots; None if it is not on this machine.
        preferred_slot: The slot of the sequence's last completion.

    Raises:
        ContextExceededError: The prompt does not fit.
        TokenDataError: Ids or logprobs are missing.
        ModelError: The server failed.
    """
    async with client.slot(preferred_slot) as slot:
        streamed = await client.stream(prompt, slot, settings)
        logprobs: dict[int, float] = {token.position: token.logprob for token in streamed.tokens}
        known = {token.position: token.id for token in streamed.tokens}
        if len(logprobs) == streamed.count == len(streamed.tokens):
            ids = tuple(known[at] for at in range(streamed.count))
        else:
            ids = await _recovered_ids(client, prompt, streamed, known, slot, saved)
            for at in [at for at in range(len(ids)) if at not in logprobs]:
                logprobs[at] = await listed_logprob(
                    client.post, (*prompt, *ids[:at]), ids[at], await _letter(client), {"id_slot": slot}
                )
    values = tuple(logprobs[at] for at in range(len(ids)))
    return LlamaCompletion(streamed.text, ids, values, streamed.stop_type, streamed.cached, slot)


async def _recovered_ids(
    client: LlamaClient,
    prompt: Sequence[int],
    streamed: Streamed,
    known: Mapping[int, int],
    slot: int,
    saved: Path | None,
) -> tuple[int, ...]:
    """The ids of a completion of which some were not streamed, checked against those that were."""
    count = max(known, default=-1) + 1  # a completion cut inside its last character loses that character
    if count == len(known):
        return tuple(known[at] for at in range(count))
    if saved is None:
        raise TokenDataError(f"llama.cpp streamed {len(streamed.tokens)} of {streamed.count} sampled tokens")
    held = await _held_ids(client, slot, saved)
    earlier = count - 1  # the last token may not be in the state yet, and is known
    for start in range(len(held) - len(prompt) - earlier + 1):  # a header of a few numbers comes first
        ids = held[start + len(prompt) : start + len(prompt) + earlier]
        matches = all(ids[at] == one for at, one in known.items() if at < earlier)
        if matches and held[start : start + len(prompt)] == tuple(prompt):
            return (*ids, known[earlier])
    raise TokenDataError("llama.cpp's saved sequence is not the one that it streamed")


async def _held_ids(client: LlamaClient, slot: int, saved: Path) -> tuple[int, ...]:
    """The numbers that llama.cpp saves ahead of a slot's state: magic, version, count, and the token ids."""
    name = f"{uuid.uuid4().hex}.slot"
    path = anyio.Path(saved / name)
    try:
        await client.post(f"/slots/{slot}?action=save", {"filename": name})
        async with await path.open("rb") as file:
            count = struct.unpack("<3I", await file.read(12))[2]
            return struct.unpack(f"<{count}i", await file.read(4 * count))
    except (OSError, struct.error) as error:
        raise TokenDataError(f"llama.cpp's saved sequence cannot be read: {error}") from error
    finally:
        with anyio.CancelScope(shield=True):
            await path.unlink(missing_ok=True)


async def _letter(client: LlamaClient) -> int:
    return (await client.tokenizer.encode("a", special=False))[-1]

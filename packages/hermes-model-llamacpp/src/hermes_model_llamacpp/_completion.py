"""A completion with every sampled token and its logprob, whatever was streamed."""

from __future__ import annotations

import math
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import ModelError, TokenDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hermes_model_llamacpp._client import LlamaClient, Streamed

__all__ = ["Completion", "complete"]

_IMPOSSIBLE = -9_000.0  # llama.cpp writes a probability of 0 as the lowest float, others use -9999
_LIST_SIZES = (1_024, 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Completion:
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
) -> Completion:
    """Sample a completion and see that its tokens are complete and possible.

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
        TokenDataError: Ids or logprobs are missing or impossible.
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
                logprobs[at] = await _logprob(client, (*prompt, *ids[:at]), ids[at], slot)
    values = tuple(logprobs[at] for at in range(len(ids)))
    _check(ids, values)
    return Completion(streamed.text, ids, values, streamed.stop_type, streamed.cached, slot)


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


async def _logprob(client: LlamaClient, prompt: Sequence[int], token: int, slot: int) -> float:
    """Ask for the whole distribution after a prompt, and look one token up in it.

    What is sampled is forced to be a plain letter, because the answer again lists nothing for half a character; forcing
    does not touch the probabilities that are listed.
    """
    letter = (await client.tokenize("a", special=False))[-1]
    for size in _LIST_SIZES:
        answer = await client.post(
            "/completion",
            {
                "prompt": list(prompt),
                "id_slot": slot,
                "n_predict": 1,
                "n_probs": size,
                "temperature": 0,
                "logit_bias": [[letter, 1e6]],
                "cache_prompt": True,
            },
        )
        try:
            listed = answer["completion_probabilities"][0]["top_logprobs"]
            found = next((float(one["logprob"]) for one in listed if one["id"] == token), None)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise TokenDataError("llama.cpp lists no logprobs") from error
        if found is not None:
            return found
    raise TokenDataError(f"llama.cpp lists no logprob of token {token}")


def _check(ids: Sequence[int], logprobs: Sequence[float]) -> None:
    if not ids:
        raise ModelError("llama.cpp sampled nothing")
    for token, logprob in zip(ids, logprobs, strict=True):
        if not math.isfinite(logprob) or not _IMPOSSIBLE < logprob <= 0.0:
            raise TokenDataError(f"llama.cpp gave token {token} the logprob {logprob}")

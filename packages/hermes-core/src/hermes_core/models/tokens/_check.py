"""Sampled tokens as an engine reports them: complete and possible, or an error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hermes_core.exceptions import TokenDataError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["check_tokens"]

_IMPOSSIBLE = -9_000.0  # vLLM writes -9999 where it has no logprob, llama.cpp and SGLang the lowest float


def check_tokens(ids: Sequence[object], logprobs: Sequence[object], *, engine: str, hint: str | None) -> None:
    """See that tokens can be trained on.

    Args:
        ids: The sampled ids.
        logprobs: Their logprobs.
        engine: Whose they are.
        hint: What to change about the engine.

    Raises:
        TokenDataError: Ids are missing or no ids, lengths differ, or a logprob is NaN, infinite, positive or a
            sentinel.
    """
    if not ids:
        raise TokenDataError(f"{engine} returned no sampled token ids", hint=hint)
    if len(ids) != len(logprobs):
        raise TokenDataError(f"{engine} returned {len(ids)} token ids and {len(logprobs)} logprobs", hint=hint)
    for token, logprob in zip(ids, logprobs, strict=True):
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise TokenDataError(f"{engine} returned {token!r} as a token id", hint=hint)
        is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool) and math.isfinite(logprob)
        if not is_number or not _IMPOSSIBLE < logprob <= 0.0:  # type: ignore[operator]  # it is a number
            raise TokenDataError(f"{engine} gave token {token} the logprob {logprob!r}", hint=hint)

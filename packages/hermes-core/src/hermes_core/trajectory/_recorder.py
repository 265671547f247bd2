"""From the tokens of turns to segments. Ids are history: nothing is ever encoded again."""

from __future__ import annotations

import marshal
import math
from typing import TYPE_CHECKING

from hermes_core.exceptions import TokenDataError
from hermes_core.trajectory._types import Segment, TurnSpan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_core.models import TurnTokens

__all__ = ["SegmentRecorder", "turns_to_segments"]

_SENTINEL = -9999.0  # vLLM writes it where it has no logprob


class SegmentRecorder:
    """Merges turns into as few segments as exactness allows.

    A turn whose prompt starts with the open segment's exact ids extends it; any other opens a new one. A turn costs
    work on its new tokens only; and one comparison of its prompt in C. Whoever made the prompt from the turn before
    (`TurnTokens.after`) saves both for the prompt: what an engine returned is looked at in any case.
    """

    def __init__(self) -> None:
        self._closed: list[Segment] = []
        # The open segment is always its last turn's prompt and completion, so that no growing list is kept.
        self._last: TurnTokens | None = None
        self._sampled: list[tuple[int, tuple[float, ...]]] = []
        self._open: Segment | None = None
        """The open segment, once somebody has asked for it."""

    def add(self, turn: TurnTokens) -> TurnSpan:
        """Record the next turn.

        Raises:
            TokenDataError: Ids are missing or impossible, lengths differ, or a logprob is NaN, infinite, positive or
                a sentinel. The recorder is unchanged.
        """
        known = self._known(turn)
        _validate(turn, len(turn.prompt_ids) if known and turn.after is self._last else known)
        if not known and self._last is not None:
            self._closed.append(self._open_segment(self._last))
            self._sampled = []
        start = len(turn.prompt_ids)
        self._last, self._open = turn, None
        self._sampled.append((start, turn.logprobs))
        return TurnSpan(len(self._closed), start, start + len(turn.completion_ids))

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What was recorded so far."""
        return tuple(self._closed) if self._last is None else (*self._closed, self._open_segment(self._last))

    def _known(self, turn: TurnTokens) -> int:
        """How many ids of the turn's prompt are the open segment; 0 if it does not extend it."""
        last, prompt = self._last, turn.prompt_ids
        if last is None:
            return 0
        border = len(last.prompt_ids)
        end = border + len(last.completion_ids)
        # The short completion goes first: histories that part usually part there.
        extends = prompt[border:end] == last.completion_ids
        return end if extends and (turn.after is last or prompt[:border] == last.prompt_ids) else 0

    def _open_segment(self, last: TurnTokens) -> Segment:
        if self._open is None:
            self._open = self._made_segment(last.prompt_ids + last.completion_ids)
        return self._open

    def _made_segment(self, ids: tuple[int, ...]) -> Segment:
        mask, logprobs = [0] * len(ids), [0.0] * len(ids)
        for start, sampled in self._sampled:
            end = start + len(sampled)
            mask[start:end] = [1] * len(sampled)
            logprobs[start:end] = sampled
        return Segment(ids, tuple(mask), tuple(logprobs))


def turns_to_segments(turns: Iterable[TurnTokens]) -> tuple[Segment, ...]:
    """Merge the turns of one trajectory into segments.

    Raises:
        TokenDataError: A turn's data are missing or impossible.
    """
    recorder = SegmentRecorder()
    for turn in turns:
        recorder.add(turn)
    return recorder.segments


def _validate(turn: TurnTokens, known: int) -> None:
    """Refuse impossible data; the first `known` prompt ids are known to be possible."""
    if not turn.prompt_ids or not turn.completion_ids:
        missing = "completion" if turn.prompt_ids else "prompt"
        raise TokenDataError(f"the engine returned no {missing} token ids", hint="switch on token ids in the engine")
    if len(turn.completion_ids) != len(turn.logprobs):
        raise TokenDataError(
            f"the engine returned {len(turn.completion_ids)} token ids and {len(turn.logprobs)} logprobs",
            hint="switch on the logprobs of sampled tokens in the engine",
        )
    for ids in (turn.prompt_ids[known:], turn.completion_ids):
        _validate_ids(ids)
    for position, logprob in enumerate(turn.logprobs):
        if not isinstance(logprob, (int, float)) or not math.isfinite(logprob) or not _SENTINEL < logprob <= 0:
            raise TokenDataError(f"logprob {logprob!r} of sampled token {position} is not a log probability")


def _validate_ids(ids: tuple[int, ...]) -> None:
    if not _are_packed_ids(ids) and not all(type(token) is int and token >= 0 for token in ids):
        raise TokenDataError("a token id is not an integer of at least 0")


def _are_packed_ids(ids: tuple[int, ...]) -> bool:
    """Whether all are of the type `int` (no bool) and from 0 to 2³¹ - 1, at a third of the price of asking each.

    `marshal` writes such a tuple as five bytes, then per id the letter `i` and four bytes, the last with the sign.
    What it writes in any other way is for a slower check: only the price depends on its format.
    """
    try:
        packed = marshal.dumps(ids, 2)
    except ValueError:
        return False
    return packed[5::5] == b"i" * len(ids) and packed[9::5].isascii()

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_core.exceptions import TokenDataError
from hermes_core.models import TurnTokens
from hermes_core.trajectory import SegmentRecorder, turns_to_segments

ids = st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[bool, TurnTokens]]:
    """Turns that either extend the history or start a new one, by what was drawn."""
    turns: list[tuple[bool, TurnTokens]] = []
    history: tuple[int, ...] = ()
    for _ in range(draw(st.integers(1, 6))):
        extends = bool(turns) and draw(st.booleans())
        # 9 occurs nowhere else, so that a new prompt never extends the history by chance.
        prompt = history + draw(ids | st.just(())) if extends else (9, *draw(ids))
        extends = extends or (prompt[: len(history)] == history and bool(history))
        completion = draw(ids)
        logprobs = tuple(draw(st.lists(st.floats(-50, 0), min_size=len(completion), max_size=len(completion))))
        after = turns[-1][1] if extends and draw(st.booleans()) else None
        turns.append((extends, TurnTokens(prompt, completion, logprobs, after=after)))
        history = prompt + completion
    return turns


@given(conversations())
def test_every_sampled_token_is_kept_once_with_its_own_logprob(drawn: list[tuple[bool, TurnTokens]]) -> None:
    turns = [turn for _, turn in drawn]
    recorder = SegmentRecorder()
    spans = [recorder.add(turn) for turn in turns]
    segments = recorder.segments
    assert len(segments) == sum(not extends for extends, _ in drawn)
    for turn, span in zip(turns, spans, strict=True):
        segment = segments[span.segment]
        assert segment.ids[: span.start] == turn.prompt_ids
        assert segment.ids[span.start : span.end] == turn.completion_ids
        assert segment.logprobs[span.start : span.end] == turn.logprobs
        assert set(segment.mask[span.start : span.end]) == {1}
    for segment in segments:
        assert len(segment.ids) == len(segment.mask) == len(segment.logprobs)
        assert all(lp == 0.0 for lp, m in zip(segment.logprobs, segment.mask, strict=True) if not m)
    assert sum(sum(segment.mask) for segment in segments) == sum(len(turn.completion_ids) for turn in turns)
    assert turns_to_segments(turns) == segments


def test_a_prompt_that_was_made_from_another_turn_is_compared() -> None:
    first, second = TurnTokens((1, 2), (3,), (-0.1,)), TurnTokens((1, 2, 3), (3,), (-0.1,))
    third = TurnTokens((8, 8, 8, 3, 5), (5,), (-0.2,), after=first)  # of which only the length fits
    assert len(turns_to_segments([first, second, third])) == 2
    with pytest.raises(TokenDataError):
        turns_to_segments([first, TurnTokens((1, 2, 3, 4), (-5,), (-0.2,), after=first)])


def test_a_prompt_that_differs_by_one_token_opens_a_segment() -> None:
    first = TurnTokens((1, 2), (3,), (-0.1,))
    assert len(turns_to_segments([first, TurnTokens((1, 2, 3, 4), (5,), (-0.2,))])) == 1
    assert len(turns_to_segments([first, TurnTokens((1, 2, 4), (5,), (-0.2,))])) == 2
    assert len(turns_to_segments([first, TurnTokens((1, 2), (5,), (-0.2,))])) == 2


@pytest.mark.parametrize(
    "turn",
    [
        TurnTokens((), (1,), (-1.0,)),
        TurnTokens((1,), (), ()),
        TurnTokens((1,), (1, 2), (-1.0,)),
        TurnTokens((1,), (1,), (math.nan,)),
        TurnTokens((1,), (1,), (-math.inf,)),
        TurnTokens((1,), (1,), (0.1,)),
        TurnTokens((1,), (1,), (-9999.0,)),
        TurnTokens((1,), (1,), (None,)),  # type: ignore[arg-type]
        TurnTokens((-1,), (1,), (-1.0,)),
        TurnTokens((1,), ("a",), (-1.0,)),  # type: ignore[arg-type]
        TurnTokens((True,), (1,), (-1.0,)),
    ],
)
def test_impossible_data_are_refused_and_change_nothing(turn: TurnTokens) -> None:
    recorder = SegmentRecorder()
    recorder.add(TurnTokens((1,), (2,), (-0.5,)))
    before = recorder.segments
    with pytest.raises(TokenDataError):
        recorder.add(turn)
    assert recorder.segments == before


def test_a_long_conversation_stays_one_segment() -> None:
    recorder = SegmentRecorder()
    prompt = tuple(range(1000, 1000 + 16_000))
    completion = tuple(range(5000, 5200))
    for _ in range(64):
        recorder.add(TurnTokens(prompt, completion, (-0.5,) * len(completion)))
        prompt = prompt + completion + (7,) * 50
    (segment,) = recorder.segments
    assert segment.ids == prompt[:-50]
    assert sum(segment.mask) == 64 * len(completion)

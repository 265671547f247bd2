from __future__ import annotations

from hermes_core.exceptions import BackendUnavailableError, NoCapacityError, SandboxLostError
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots._starts import ATTEMPTS, LONGEST_PAUSE_S, StartTroubles, Verdict

A, B = SandboxSpec(slots=2), SandboxSpec(slots=2, image="b")
FULL = NoCapacityError("memory is exhausted", hint="add nodes")
CRASHED = SandboxLostError("it crashed")


def fail(
    troubles: StartTroubles,
    error: SandboxLostError | NoCapacityError | BackendUnavailableError,
    now: float,
    **seen: bool,
) -> Verdict:
    return troubles.failed(error, A, now=now, **{"alive": False, "coming": False, "serving": False, **seen})


def test_where_there_was_never_room_everyone_of_that_kind_is_told_at_once() -> None:
    verdict = fail(StartTroubles(300), FULL, 5.0)
    assert isinstance(verdict.refusal, NoCapacityError)
    assert (verdict.refusal.message, verdict.refusal.hint) == (FULL.message, FULL.hint)
    assert not verdict.everyone
    assert verdict.is_news


def test_whoever_waits_is_not_told_before_the_last_start_has_failed() -> None:
    troubles = StartTroubles(300)
    assert fail(troubles, FULL, 0.0, coming=True).refusal is None
    assert fail(troubles, FULL, 0.1).refusal is not None


def test_while_others_are_alive_it_is_tried_again_for_ever_and_told_once() -> None:
    troubles = StartTroubles(300)
    now, pauses, told = 0.0, [], 0
    for _ in range(20):
        verdict = fail(troubles, FULL, now, alive=True)
        assert verdict.refusal is None
        told += verdict.is_news
        pauses.append(verdict.retry_at - now)
        assert troubles.held(now) == troubles.no_room == [A]
        now = verdict.retry_at
        assert troubles.held(now) == []
    assert pauses[:5] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert set(pauses[5:]) == {LONGEST_PAUSE_S}
    assert told == 1
    assert fail(troubles, NoCapacityError("no node left"), now, alive=True).is_news


def test_once_it_worked_lack_of_room_is_waited_out_for_some_time() -> None:
    troubles = StartTroubles(50)
    troubles.came_up(A, 0.0)
    troubles.went(100.0)
    now = 100.0
    while (verdict := fail(troubles, FULL, now)).refusal is None:
        assert now < 150.0
        now = verdict.retry_at
    assert now == 150.0  # not later, however long the pauses are
    assert isinstance(verdict.refusal, NoCapacityError)


def test_room_that_may_be_there_is_tried_at_once() -> None:
    troubles = StartTroubles(300)
    for now in (0.0, 1.0, 3.0):
        fail(troubles, FULL, now, alive=True)
    assert troubles.held(4.0) == [A]
    troubles.went(4.0)
    assert troubles.held(4.0) == []


def test_starts_that_fail_at_the_same_time_count_as_one_pause() -> None:
    troubles = StartTroubles(300)
    first = fail(troubles, FULL, 0.0, alive=True)
    assert fail(troubles, FULL, 0.1, alive=True).retry_at == first.retry_at == 1.0


def test_lack_of_room_is_none_of_the_failures() -> None:
    troubles = StartTroubles(300)
    for _ in range(ATTEMPTS - 1):
        assert fail(troubles, CRASHED, 0.0).refusal is None
    assert fail(troubles, FULL, 0.0, alive=True).refusal is None
    refusal = fail(troubles, CRASHED, 0.0).refusal
    assert isinstance(refusal, SandboxLostError)
    assert "do not start: it crashed" in refusal.message


def test_what_serves_keeps_callers_waiting() -> None:
    troubles = StartTroubles(300)
    now = 0.0
    for _ in range(20):
        verdict = fail(troubles, CRASHED, now, alive=True, serving=True)
        assert verdict.refusal is None
        assert verdict.retry_at - now <= LONGEST_PAUSE_S
        now = verdict.retry_at
    assert fail(troubles, CRASHED, now, alive=True).refusal is not None  # those that served are gone


def test_whoever_asks_after_a_refusal_is_not_held_up_by_it() -> None:
    troubles = StartTroubles(300)
    fail(troubles, FULL, 0.0)
    assert troubles.held(0.0) == [A]  # what is only kept is not tried at once
    assert troubles.reason(A) == FULL.message
    troubles.asked(B)
    assert troubles.held(0.0) == [A]
    troubles.asked(A)
    assert troubles.held(0.0) == troubles.no_room == []
    assert troubles.reason(A) is None


def test_a_backend_that_cannot_work_tells_everyone() -> None:
    broken = BackendUnavailableError("no engine", hint="start it")
    troubles = StartTroubles(300)
    troubles.failed(CRASHED, B, now=0.0, alive=False, coming=False, serving=False)
    verdict = fail(troubles, broken, 0.0)
    assert verdict.everyone
    assert isinstance(verdict.refusal, BackendUnavailableError)
    troubles.asked(B)
    assert troubles.held(0.0) == [A]
    assert fail(StartTroubles(300), broken, 0.0, alive=True).refusal is None


def test_what_comes_up_ends_the_trouble() -> None:
    troubles = StartTroubles(300)
    fail(troubles, FULL, 0.0, alive=True)
    troubles.came_up(A, 1.0)
    assert troubles.held(1.0) == []
    assert fail(troubles, FULL, 2.0, alive=True).retry_at == 3.0


def test_one_place_where_none_can_start_is_no_reason_to_give_up_while_others_start() -> None:
    troubles = StartTroubles(300)
    broken = BackendUnavailableError("no engine on node 7")
    verdicts = [fail(troubles, broken, float(number), coming=True) for number in range(ATTEMPTS)]
    assert [verdict.refusal is None for verdict in verdicts] == [True] * (ATTEMPTS - 1) + [False]
    assert verdicts[-1].everyone
    assert isinstance(verdicts[-1].refusal, BackendUnavailableError)
    assert fail(StartTroubles(300), broken, 0.0).everyone

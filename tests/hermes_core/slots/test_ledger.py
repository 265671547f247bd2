from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hermes_core.sandbox import SandboxSpec
from hermes_core.slots._ledger import Ledger, SlotRef, Ticket

A, B = SandboxSpec(slots=2), SandboxSpec(slots=2, image="b")


def ready(ledger: Ledger, name: str, spec: SandboxSpec = A, capacity: int = 2) -> None:
    ledger.starting(name, spec)
    ledger.started(name, capacity, now=0.0)


def test_slots_go_to_those_who_wait_longest() -> None:
    ledger = Ledger(max_sandboxes=1, max_starting=1)
    tickets = [ledger.enqueue(A) for _ in range(3)]
    ready(ledger, "one")
    assert ledger.grant() == tickets[:2]
    slot = tickets[0].slot
    assert slot is not None
    assert ledger.give_back(slot)
    assert ledger.grant() == []  # not before it is clean
    ledger.cleaned(slot, now=1.0)
    assert ledger.grant() == [tickets[2]]
    assert tickets[2].slot == slot


def test_a_kind_that_is_full_does_not_hold_up_another() -> None:
    ledger = Ledger(max_sandboxes=2, max_starting=2)
    ready(ledger, "b", B)
    first, second = ledger.enqueue(A), ledger.enqueue(B)
    assert ledger.grant() == [second]
    assert first.slot is None


def test_sandboxes_are_wanted_for_those_who_wait_and_no_more() -> None:
    ledger = Ledger(max_sandboxes=3, max_starting=2)
    assert ledger.wanted() is None
    for _ in range(5):
        ledger.enqueue(A)
    assert ledger.wanted() == A
    ledger.starting("one", A)
    ledger.starting("two", A)
    assert ledger.wanted() is None  # two are starting
    ledger.started("one", 2, now=0.0)
    ledger.grant()
    assert ledger.wanted() == A  # three wait, two slots are coming
    ledger.starting("three", A)
    ledger.started("two", 2, now=0.0)
    assert ledger.wanted() is None  # as many as there may be


def test_an_idle_sandbox_is_expendable_and_a_used_one_is_not() -> None:
    ledger = Ledger(max_sandboxes=2, max_starting=2)
    ready(ledger, "one")
    assert ledger.expendable(now=9.0, idle_s=10.0) == []
    assert ledger.expendable(now=10.0, idle_s=10.0) == ["one"]
    ledger.enqueue(A)
    ledger.grant()
    assert ledger.expendable(now=99.0, idle_s=10.0) == []


def test_an_idle_sandbox_makes_room_for_a_kind_that_is_waited_for() -> None:
    ledger = Ledger(max_sandboxes=1, max_starting=1)
    ready(ledger, "one", A)
    ledger.enqueue(B)
    assert ledger.wanted() is None
    assert ledger.expendable(now=0.0, idle_s=10.0) == ["one"]
    ledger.stopping("one")
    assert ledger.wanted() is None
    ledger.gone("one")
    assert ledger.wanted() == B


def test_an_idle_sandbox_makes_room_where_there_is_none_although_more_may_be_alive() -> None:
    ledger = Ledger(max_sandboxes=4, max_starting=1)
    ready(ledger, "one", A)
    ledger.enqueue(B)
    assert ledger.wanted(held=[B]) is None
    assert ledger.expendable(now=0.0, idle_s=10.0) == []
    assert ledger.expendable(now=0.0, idle_s=10.0, no_room=[A]) == []
    assert ledger.expendable(now=0.0, idle_s=10.0, no_room=[B]) == ["one"]


def test_a_kind_that_is_held_does_not_hold_up_another() -> None:
    ledger = Ledger(max_sandboxes=2, max_starting=2)
    ledger.enqueue(A)
    ledger.enqueue(B)
    assert ledger.wanted(held=[A]) == B
    assert ledger.wanted(held=[A, B]) is None


def keeping(minimum: int, *, most: int = 3) -> Ledger:
    return Ledger(max_sandboxes=most, max_starting=3, kept=A, min_kept=minimum)


def test_some_are_kept_without_anyone_asking() -> None:
    ledger = keeping(2)
    for name in ("one", "two"):
        assert ledger.wanted() == A
        ledger.starting(name, A)
    assert ledger.wanted() is None
    ledger.started("one", 2, now=0.0)
    ledger.gone("two")  # it did not start
    assert ledger.wanted(held=[A]) is None
    assert ledger.wanted() == A
    ledger.stopping("one")
    ledger.starting("three", A)
    ledger.starting("four", A)
    assert ledger.wanted() is None  # the one that is being stopped takes the last place


def test_those_who_wait_come_before_what_is_kept() -> None:
    ledger = keeping(1, most=1)
    ledger.enqueue(B)
    assert ledger.wanted() == B


def test_what_is_kept_does_not_take_the_room_that_others_wait_for() -> None:
    ledger = keeping(1)
    ready(ledger, "one")
    ledger.enqueue(B)
    ledger.stopping("one")
    assert ledger.wanted(held=[B]) is None
    assert ledger.wanted() == B
    ledger.starting("b", B)
    assert ledger.wanted() is None
    ledger.started("b", 1, now=0.0)
    assert ledger.wanted() == A


def test_what_is_kept_is_not_stopped_for_being_idle() -> None:
    ledger = keeping(1)
    for name in ("one", "two"):
        ready(ledger, name)
    ready(ledger, "other", B)
    assert ledger.expendable(now=99.0, idle_s=10.0) == ["one", "other"]
    for name in ("one", "other"):
        ledger.stopping(name)
    assert ledger.expendable(now=99.0, idle_s=10.0) == []


def test_what_is_kept_makes_room_for_a_kind_that_is_waited_for() -> None:
    ledger = keeping(1, most=1)
    ready(ledger, "one")
    ledger.enqueue(B)
    assert ledger.expendable(now=0.0, idle_s=10.0) == ["one"]


def test_a_kept_sandbox_without_a_usable_slot_is_replaced() -> None:
    ledger = keeping(1)
    ready(ledger, "one", capacity=1)
    ready(ledger, "two", capacity=1)
    ledger.enqueue(A)
    (ticket,) = ledger.grant()
    assert ticket.slot is not None
    ledger.give_back(ticket.slot)
    ledger.retire(ticket.slot)
    assert ledger.expendable(now=99.0, idle_s=10.0) == ["one"]  # and not the other one, too
    ledger.stopping("two")
    assert ledger.wanted() == A


def test_a_sandbox_without_a_usable_slot_is_expendable() -> None:
    ledger = Ledger(max_sandboxes=1, max_starting=1)
    ready(ledger, "one", A, capacity=1)
    ticket = ledger.enqueue(A)
    ledger.grant()
    assert ticket.slot is not None
    ledger.give_back(ticket.slot)
    ledger.retire(ticket.slot)
    assert ledger.expendable(now=0.0, idle_s=10.0) == ["one"]


def test_a_slot_of_a_lost_sandbox_comes_back_to_nobody() -> None:
    ledger = Ledger(max_sandboxes=1, max_starting=1)
    ready(ledger, "one")
    ticket = ledger.enqueue(A)
    ledger.grant()
    assert ticket.slot is not None
    ledger.stopping("one")
    assert not ledger.give_back(ticket.slot)
    ledger.cleaned(ticket.slot, now=0.0)
    ledger.gone("one")
    assert ledger.count() == (0, 0, 0)


def test_giving_back_twice_is_a_defect() -> None:
    ledger = Ledger(max_sandboxes=1, max_starting=1)
    ready(ledger, "one")
    ticket = ledger.enqueue(A)
    ledger.grant()
    assert ticket.slot is not None
    ledger.give_back(ticket.slot)
    with pytest.raises(KeyError):
        ledger.give_back(ticket.slot)


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of events: no slot is lost, leased twice, or handed on before it is clean."""

    minimum = 0

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(max_sandboxes=3, max_starting=2, kept=A, min_kept=self.minimum)
        self.specs: dict[str, SandboxSpec] = {}
        self.held_back: set[SandboxSpec] = set()
        self.now = 0.0
        self.names = 0
        self.capacity: dict[str, int] = {}  # of sandboxes that are ready
        self.starting: dict[str, SandboxSpec] = {}
        self.stopping: list[str] = []
        self.waiting: list[Ticket] = []
        self.held: list[Ticket] = []
        self.resetting: list[SlotRef] = []
        self.retired: set[SlotRef] = set()

    def pick(self, items: list[Ticket], data: st.DataObject) -> Ticket:
        return items.pop(data.draw(st.integers(0, len(items) - 1)))

    def pump(self) -> None:
        before = list(self.waiting)
        for ticket in self.ledger.grant():
            # The first in the queue of its kind.
            assert ticket is next(other for other in before if other.spec == ticket.spec)
            before.remove(ticket)
            self.waiting.remove(ticket)
            self.held.append(ticket)
        while (spec := self.ledger.wanted(held=self.held_back)) is not None:
            assert spec not in self.held_back
            assert any(ticket.spec == spec for ticket in self.waiting) or self.kept() < self.minimum
            self.names += 1
            self.ledger.starting(str(self.names), spec)
            self.starting[str(self.names)] = self.specs[str(self.names)] = spec
        expendable = self.ledger.expendable(now=self.now, idle_s=5.0, no_room=self.held_back)
        others_wait = any(ticket.spec != A for ticket in self.waiting)
        for name in expendable:
            assert not any(ticket.slot and ticket.slot.sandbox == name for ticket in self.held)
            usable = self.usable(name)
            self.lose(name)
            if self.specs[name] == A and usable and not others_wait:
                assert self.kept() >= self.minimum

    def usable(self, name: str) -> bool:
        return any(slot.sandbox == name and state != "retired" for slot, state in self.ledger.slots())

    def kept(self) -> int:
        """Sandboxes of the kept kind that live or are starting."""
        alive = [name for name in self.capacity if self.usable(name)]
        return sum(self.specs[name] == A for name in (*alive, *self.starting))

    def lose(self, name: str) -> None:
        self.ledger.stopping(name)
        del self.capacity[name]
        self.stopping.append(name)

    @initialize()
    def open(self) -> None:
        self.pump()

    @rule(spec=st.sampled_from([A, B]))
    def ask(self, spec: SandboxSpec) -> None:
        self.waiting.append(self.ledger.enqueue(spec))
        self.pump()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.ledger.withdraw(self.pick(self.waiting, data))
        self.pump()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_up_too_late(self, data: st.DataObject) -> None:
        self.ledger.withdraw(self.pick(self.held, data))
        self.pump()

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = self.pick(self.held, data).slot
        assert slot is not None
        if self.ledger.give_back(slot):
            self.resetting.append(slot)
        self.pump()

    @precondition(lambda self: self.resetting)
    @rule(clean=st.booleans())
    def reset(self, clean: bool) -> None:
        slot = self.resetting.pop(0)
        if clean:
            self.ledger.cleaned(slot, now=self.now)
        else:
            self.ledger.retire(slot)
            self.retired.add(slot)
        self.pump()

    @precondition(lambda self: self.starting)
    @rule(capacity=st.integers(1, 3), comes_up=st.booleans())
    def start(self, capacity: int, comes_up: bool) -> None:
        name = next(iter(self.starting))
        del self.starting[name]
        if comes_up:
            self.ledger.started(name, capacity, now=self.now)
            self.capacity[name] = capacity
        else:
            self.ledger.gone(name)
        self.pump()

    @precondition(lambda self: self.capacity)
    @rule()
    def crash(self) -> None:
        self.lose(next(iter(self.capacity)))
        self.pump()

    @precondition(lambda self: self.stopping)
    @rule()
    def stopped(self) -> None:
        self.ledger.gone(self.stopping.pop(0))
        self.pump()

    @rule(spec=st.sampled_from([A, B]), held=st.booleans())
    def hold(self, spec: SandboxSpec, held: bool) -> None:
        (self.held_back.add if held else self.held_back.discard)(spec)
        self.pump()

    @rule(seconds=st.floats(0.0, 6.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.pump()

    @invariant()
    def every_slot_is_in_one_place(self) -> None:
        slots = list(self.ledger.slots())
        assert max(Counter(slot for slot, _ in slots).values(), default=1) == 1
        assert Counter(slot.sandbox for slot, _ in slots) == Counter(self.capacity)

    @invariant()
    def holders_and_ledger_agree(self) -> None:
        states = dict(self.ledger.slots())
        held = [ticket.slot for ticket in self.held if ticket.slot and ticket.slot.sandbox in self.capacity]
        assert len(held) == len(set(held))
        assert {slot for slot, state in states.items() if state == "granted"} == set(held)
        resetting = {slot for slot in self.resetting if slot.sandbox in self.capacity}
        assert {slot for slot, state in states.items() if state == "resetting"} == resetting
        assert all(states.get(slot, "retired") == "retired" for slot in self.retired)
        assert self.ledger.waiting == len(self.waiting)

    @invariant()
    def nobody_waits_while_a_slot_is_free(self) -> None:
        specs = {ticket.spec for ticket in self.waiting}
        free = [slot for slot, state in self.ledger.slots() if state == "free"]
        assert not any(self.ledger._sandboxes[slot.sandbox].spec in specs for slot in free)

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.capacity) + len(self.starting) + len(self.stopping) <= 3
        assert len(self.starting) <= 2

    @invariant()
    def as_many_are_kept_as_there_is_room_for(self) -> None:
        everything = len(self.capacity) + len(self.starting) + len(self.stopping)
        room = everything < 3 and len(self.starting) < 2 and A not in self.held_back
        urgent = any(ticket.spec in self.held_back or ticket.spec != A for ticket in self.waiting)
        assert self.kept() >= self.minimum or not room or urgent


class KeepingLedgerMachine(LedgerMachine):
    """The same for a pool that always has some sandboxes."""

    minimum = 2


TestLedger = LedgerMachine.TestCase
TestKeepingLedger = KeepingLedgerMachine.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKeepingLedger.settings = TestLedger.settings

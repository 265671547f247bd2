r"""Who has which slot: the pool's bookkeeping, pure and synchronous.

Every slot of a living sandbox is in exactly one state::

    free -> granted -> resetting -> free
                           \-> retired

The driver (`_pool.py`) calls one method per event and does what `grant` and `wanted` answer; nothing here waits, so no
interleaving of tasks can be seen from inside.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from hermes_core.sandbox import SandboxSpec

__all__ = ["Ledger", "SlotRef", "Ticket"]


@dataclass(frozen=True, slots=True)
class SlotRef:
    """One slot: the sandbox's name, and the slot's number within it."""

    sandbox: str
    index: int


@dataclass(eq=False, slots=True)
class Ticket:
    """A place in the queue. `slot` is set when it was granted one."""

    spec: SandboxSpec
    slot: SlotRef | None = None


@dataclass(slots=True)
class _Sandbox:
    spec: SandboxSpec
    capacity: int
    state: Literal["starting", "ready", "stopping"] = "starting"
    idle_since: float = 0.0
    free: deque[int] = field(default_factory=deque)
    granted: set[int] = field(default_factory=set)
    resetting: set[int] = field(default_factory=set)
    retired: set[int] = field(default_factory=set)
    uses: Counter[int] = field(default_factory=Counter)


class Ledger:
    """Grants slots first come first served, and says when a sandbox should start or stop.

    Args:
        max_sandboxes: Most sandboxes alive or starting at once.
        max_starting: Most sandboxes starting at once.
        kept: A kind of sandbox of which there should always be some.
        min_kept: How many of it.
    """

    def __init__(
        self, *, max_sandboxes: int, max_starting: int, kept: SandboxSpec | None = None, min_kept: int = 0
    ) -> None:
        self._max_sandboxes = max_sandboxes
        self._max_starting = max_starting
        self._kept = kept
        self._min_kept = min_kept
        self._sandboxes: dict[str, _Sandbox] = {}
        self._queue: deque[Ticket] = deque()

    # Callers

    def enqueue(self, spec: SandboxSpec) -> Ticket:
        """Take a place at the end of the queue."""
        ticket = Ticket(spec)
        self._queue.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Leave the queue; a ticket that was granted a slot meanwhile gives it back unused."""
        if ticket.slot is None:
            self._queue.remove(ticket)
        else:
            self.give_back(ticket.slot)
            self.cleaned(ticket.slot, now=0.0)
            self._forget_use(ticket.slot)

    def refuse(self, spec: SandboxSpec | None = None) -> list[Ticket]:
        """Take everyone who waits (for such a sandbox) out of the queue, and return them."""
        refused = {ticket: None for ticket in self._queue if spec is None or ticket.spec == spec}
        self._queue = deque(ticket for ticket in self._queue if ticket not in refused)
        return list(refused)

    def grant(self) -> list[Ticket]:
        """Hand free slots to the tickets that wait longest; return those that got one."""
        granted = []
        full: set[SandboxSpec] = set()
        for ticket in list(self._queue):
            if ticket.spec in full:
                continue
            slot = self._take(ticket.spec)
            if slot is None:
                full.add(ticket.spec)
                continue
            ticket.slot = slot
            self._queue.remove(ticket)
            granted.append(ticket)
        return granted

    # Slots

    def give_back(self, slot: SlotRef) -> bool:
        """A granted slot comes back and must be reset; False when its sandbox is gone."""
        sandbox = self._ready(slot)
        if sandbox is None:
            return False
        sandbox.granted.remove(slot.index)
        sandbox.resetting.add(slot.index)
        return True

    def cleaned(self, slot: SlotRef, *, now: float, max_reuses: int | None = None) -> None:
        """A slot was verified to be clean; it is retired if it was reused often enough."""
        sandbox = self._ready(slot)
        if sandbox is None:
            return
        sandbox.resetting.remove(slot.index)
        sandbox.uses[slot.index] += 1
        if max_reuses is not None and sandbox.uses[slot.index] > max_reuses:
            sandbox.retired.add(slot.index)
        else:
            sandbox.free.append(slot.index)
            sandbox.idle_since = max(sandbox.idle_since, now)

    def retire(self, slot: SlotRef) -> None:
        """A slot could not be verified to be clean: nobody gets it again."""
        sandbox = self._ready(slot)
        if sandbox is not None:
            sandbox.resetting.remove(slot.index)
            sandbox.retired.add(slot.index)

    # Sandboxes

    def wanted(self, *, held: Container[SandboxSpec] = ()) -> SandboxSpec | None:
        """The kind of sandbox that should be started now, or None; ask again after `starting`.

        Args:
            held: Kinds of which none is to be started now.
        """
        if len(self._sandboxes) >= self._max_sandboxes or self.starting_sandboxes >= self._max_starting:
            return None
        asked_for = dict.fromkeys(ticket.spec for ticket in self._queue)
        short = [spec for spec in asked_for if self._is_short_of(spec)]
        if short:
            return next((spec for spec in short if spec not in held), None)
        if self._kept is None or self._kept in held or self._living(self._kept) >= self._min_kept:
            return None
        # What is only kept must not take the room that somebody waits for.
        put_off = any(spec != self._kept and not self.has_ready(spec) for spec in asked_for)
        return None if put_off else self._kept

    def starting(self, name: str, spec: SandboxSpec) -> None:
        """A sandbox is being started."""
        self._sandboxes[name] = _Sandbox(spec, capacity=spec.slots)

    def started(self, name: str, capacity: int, *, now: float) -> None:
        """A sandbox is ready with so many slots."""
        sandbox = self._sandboxes[name]
        sandbox.state, sandbox.capacity, sandbox.idle_since = "ready", capacity, now
        sandbox.free.extend(range(capacity))

    def stopping(self, name: str) -> None:
        """A sandbox was lost or is being stopped: its slots are no more, whoever has them."""
        sandbox = self._sandboxes[name]
        sandbox.state = "stopping"
        for slots in (sandbox.free, sandbox.granted, sandbox.resetting, sandbox.retired):
            slots.clear()

    def gone(self, name: str) -> None:
        """A sandbox did not start, or has been stopped; another may take its place."""
        del self._sandboxes[name]

    def expendable(self, *, now: float, idle_s: float, no_room: Container[SandboxSpec] = ()) -> list[str]:
        """Sandboxes that should be stopped.

        They were idle for long and are not among those that are kept, have no slot left that may be used, or stand in
        the way of a kind that is waited for.

        Args:
            now: The time.
            idle_s: How long is long.
            no_room: Kinds for which there is no room where sandboxes run, although more of them may be alive.
        """
        full = len(self._sandboxes) >= self._max_sandboxes
        blocked = any((full or ticket.spec in no_room) and not self._serves(ticket.spec) for ticket in self._queue)
        spare = self._living(self._kept) - self._min_kept if self._kept is not None else 0
        names = []
        for name, sandbox in self._sandboxes.items():
            if sandbox.state != "ready" or sandbox.granted or sandbox.resetting:
                continue
            if not sandbox.free:
                names.append(name)
            elif now - sandbox.idle_since >= idle_s and (sandbox.spec != self._kept or spare > 0):
                names.append(name)
                spare -= sandbox.spec == self._kept
            elif blocked and all(ticket.spec != sandbox.spec for ticket in self._queue):
                names.append(name)
                blocked = False
        return names

    # Counts

    def has_ready(self, spec: SandboxSpec) -> bool:
        """Whether those who wait for such a sandbox will be served by one that is ready."""
        return any(sandbox.spec == spec and sandbox.state == "ready" for sandbox in self._sandboxes.values())

    @property
    def waiting(self) -> int:
        """How many tickets wait."""
        return len(self._queue)

    @property
    def sandboxes(self) -> int:
        """How many sandboxes are ready."""
        return sum(sandbox.state == "ready" for sandbox in self._sandboxes.values())

    @property
    def starting_sandboxes(self) -> int:
        """How many sandboxes are being started."""
        return sum(sandbox.state == "starting" for sandbox in self._sandboxes.values())

    def count(self) -> tuple[int, int, int]:
        """Usable slots of ready sandboxes, and how many of them are granted and resetting."""
        usable = granted = resetting = 0
        for sandbox in self._sandboxes.values():
            if sandbox.state == "ready":
                usable += sandbox.capacity - len(sandbox.retired)
                granted += len(sandbox.granted)
                resetting += len(sandbox.resetting)
        return usable, granted, resetting

    def slots(self) -> Iterator[tuple[SlotRef, str]]:
        """Every slot of every ready sandbox with its state, for checks."""
        for name, sandbox in self._sandboxes.items():
            for state in ("free", "granted", "resetting", "retired"):
                for index in getattr(sandbox, state):
                    yield SlotRef(name, index), state

    def _ready(self, slot: SlotRef) -> _Sandbox | None:
        sandbox = self._sandboxes.get(slot.sandbox)
        return sandbox if sandbox is not None and sandbox.state == "ready" else None

    def _take(self, spec: SandboxSpec) -> SlotRef | None:
        # The oldest sandboxes are filled first, so that the youngest become idle and can be stopped.
        for name, sandbox in self._sandboxes.items():
            if sandbox.free and sandbox.spec == spec:
                index = sandbox.free.popleft()
                sandbox.granted.add(index)
                return SlotRef(name, index)
        return None

    def _coming(self, spec: SandboxSpec) -> int:
        """Slots that will be free soon without anyone giving one back."""
        return sum(
            sandbox.capacity if sandbox.state == "starting" else len(sandbox.free) + len(sandbox.resetting)
            for sandbox in self._sandboxes.values()
            if sandbox.spec == spec
        )

    def _is_short_of(self, spec: SandboxSpec) -> bool:
        """Whether more wait for such a sandbox than there will be slots."""
        return sum(ticket.spec == spec for ticket in self._queue) > self._coming(spec)

    def _living(self, spec: SandboxSpec) -> int:
        """Sandboxes of a kind that have, or will have, a slot that may be used."""
        return sum(
            sandbox.spec == spec and sandbox.state != "stopping" and len(sandbox.retired) < sandbox.capacity
            for sandbox in self._sandboxes.values()
        )

    def _forget_use(self, slot: SlotRef) -> None:
        sandbox = self._ready(slot)
        if sandbox is not None:
            sandbox.uses[slot.index] -= 1

    def _serves(self, spec: SandboxSpec) -> bool:
        return any(sandbox.spec == spec and sandbox.state != "stopping" for sandbox in self._sandboxes.values())

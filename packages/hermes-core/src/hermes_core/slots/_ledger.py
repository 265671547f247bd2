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
    from collections.abc import Iterator

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
    """

    def __init__(self, *, max_sandboxes: int, max_starting: int) -> None:
        self._max_sandboxes = max_sandboxes
        self._max_starting = max_starting
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

    def wanted(self) -> SandboxSpec | None:
        """The kind of sandbox that should be started now, or None; ask again after `starting`."""
        if len(self._sandboxes) >= self._max_sandboxes or self.starting_sandboxes >= self._max_starting:
            return None
        for spec in dict.fromkeys(ticket.spec for ticket in self._queue):
            waiting = sum(ticket.spec == spec for ticket in self._queue)
            if waiting > self._coming(spec):
                return spec
        return None

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

    def expendable(self, *, now: float, idle_s: float) -> list[str]:
        """Sandboxes that should be stopped.

        They were idle for long, have no slot left that may be used, or stand in the way of a kind that is waited for.
        """
        blocked = len(self._sandboxes) >= self._max_sandboxes and any(
            not self._serves(ticket.spec) for ticket in self._queue
        )
        names = []
        for name, sandbox in self._sandboxes.items():
            if sandbox.state != "ready" or sandbox.granted or sandbox.resetting:
                continue
            if not sandbox.free or now - sandbox.idle_since >= idle_s:
                names.append(name)
            elif blocked and all(ticket.spec != sandbox.spec for ticket in self._queue):
                names.append(name)
                blocked = False
        return names

    # Counts

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

    def _forget_use(self, slot: SlotRef) -> None:
        sandbox = self._ready(slot)
        if sandbox is not None:
            sandbox.uses[slot.index] -= 1

    def _serves(self, spec: SandboxSpec) -> bool:
        return any(sandbox.spec == spec and sandbox.state != "stopping" for sandbox in self._sandboxes.values())

"""A lease of the default pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from anyio import Event

if TYPE_CHECKING:
    from hermes_core.sandbox import SlotClient
    from hermes_core.slots._ledger import SlotRef
    from hermes_core.slots._protocol import LeaseRequest

__all__ = ["PoolLease"]


@dataclass(eq=False, slots=True)
class PoolLease:
    """One slot of one sandbox, on loan.

    Attributes:
        slot: Which slot.
        client: Speaks about it.
        request: What was asked for.
        ended: It was given back.
        settled: Set once the slot is reset or retired.
    """

    slot: SlotRef
    client: SlotClient
    request: LeaseRequest
    ended: bool = False
    settled: Event = field(default_factory=Event)

    @property
    def id(self) -> str:
        """The sandbox's name and the slot's number."""
        return f"{self.slot.sandbox}/{self.slot.index}"

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, or None while it lives."""
        return self.client.sandbox.lost

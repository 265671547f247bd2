"""The contracts of a lease and of the slot pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from hermes_core.sandbox import IsolationLevel, LimitValue, NetworkPolicy, SandboxBackend, SlotClient

__all__ = ["Lease", "LeaseRequest", "PoolConfig", "PoolStatus", "SlotPool"]


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a caller wants to lease.

    Attributes:
        profile: Name of a sandbox profile; `Hermes` resolves it, and a pool refuses what it does not know.
        image: Image of the task's own, or None.
        network: Network policy of the slot.
        env: Variables of every command in the slot.
        trajectory_id: Whose lease it is; asking again with the id of a living lease is an error.
        wait_s: Seconds to wait for a free slot; None waits for ever.
        recordings: Folder of this machine for the recordings of its terminals; None keeps them in memory.
        limits: Limits of the slot that differ from the backend's (docs/reference/protocol.md).
    """

    profile: str | None = None
    image: str | None = None
    network: NetworkPolicy = "none"
    env: Mapping[str, str] = field(default_factory=dict)
    trajectory_id: str | None = None
    wait_s: float | None = 30.0
    recordings: Path | None = None
    limits: Mapping[str, LimitValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """How a pool grows and shrinks.

    Attributes:
        slots_per_sandbox: Slots in each sandbox.
        max_sandboxes: Most sandboxes alive at once.
        max_starting: Most sandboxes starting at once.
        idle_s: A sandbox that nobody used for so many seconds is stopped.
        health_interval_s: Seconds between two looks at each sandbox.
        require_isolation: Refuse sandboxes whose slots have less than this; None takes what there is.
        network: Network policy of leases that ask for none.
        limits: Limits of every slot, under those of the lease.
        cpu_s: Seconds of processor time of each process of a command that does not say; None for no limit.
        output_bytes: Bytes to keep of each output stream of a command that does not say.
        max_reuses: How often a slot is leased again before it is retired; None for no end.
        min_sandboxes: Sandboxes without an image of a task's own that are started when the pool opens, replaced when
            they are lost, and not stopped for being idle. They still make room for a kind that is waited for.
        capacity_wait_s: Seconds without any sandbox, once there was one, after which callers are told that there is no
            room for another.
    """

    slots_per_sandbox: int = 16
    max_sandboxes: int = 1
    max_starting: int = 2
    idle_s: float = 120.0
    health_interval_s: float = 30.0
    require_isolation: IsolationLevel | None = None
    network: NetworkPolicy = "none"
    limits: Mapping[str, LimitValue] = field(default_factory=dict)
    cpu_s: float | None = None
    output_bytes: int | None = None
    max_reuses: int | None = None
    min_sandboxes: int = 0
    capacity_wait_s: float = 300.0


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """Counts of a pool: sandboxes starting and alive; slots by state; waiting callers."""

    sandboxes: int
    starting: int
    slots: int
    leased: int
    resetting: int
    waiting: int


class Lease(Protocol):
    """The time during which one trajectory owns one slot."""

    @property
    def id(self) -> str:
        """Unique within the pool, for logs."""

    @property
    def client(self) -> SlotClient:
        """Speaks to the daemon about this slot."""

    @property
    def request(self) -> LeaseRequest:
        """What was asked for."""

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, or None while it lives."""


class SlotPool(Protocol):
    """Leases slots; an async context manager that owns every sandbox that it starts.

    Made as `pool_class(backend, config)`.
    """

    def __init__(self, backend: SandboxBackend, config: PoolConfig) -> None: ...

    async def lease(self, request: LeaseRequest) -> Lease:
        """Wait for a slot, first come first served, and open it.

        Raises:
            LeaseTimeoutError: None became free within `wait_s`.
            BackendUnavailableError: The backend cannot start sandboxes here.
            NoCapacityError: There is no room for one where sandboxes run, and there is none to wait for.
            SandboxLostError: Sandboxes that were started did not come up, again and again.
        """

    def give_back(self, lease: Lease) -> None:
        """End a lease now.

        Idempotent and synchronous: the pool's own task cancels what still runs, resets the slot, and hands it on, or
        retires it if it cannot be verified to be clean.
        """

    async def settled(self, lease: Lease) -> None:
        """Wait until a lease that was given back is reset or retired."""

    def status(self) -> PoolStatus:
        """Counts right now."""

    async def __aenter__(self) -> Self:
        """Start the pool's own tasks, and the sandboxes that it always has; others start on demand."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every sandbox, whatever is still leased."""

"""The default slot pool: the ledger decides, tasks of the pool carry it out."""

from __future__ import annotations

import logging
import os
import uuid
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Self, cast

import anyio
from anyio import Event

from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import (
    ConfigError,
    HermesError,
    LeaseStateError,
    LeaseTimeoutError,
    ProtocolError,
    SandboxLostError,
    SlotDeadError,
    UnknownNameError,
)
from hermes_core.sandbox import OUTPUT_CAP, SandboxSpec, SlotClient, check_isolation
from hermes_core.slots._keeper import SandboxKeeper
from hermes_core.slots._lease import PoolLease
from hermes_core.slots._ledger import Ledger, SlotRef, Ticket
from hermes_core.slots._protocol import PoolStatus
from hermes_core.slots._starts import ATTEMPTS, StartTroubles

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from hermes_core.sandbox import SandboxBackend, SandboxClient
    from hermes_core.slots._protocol import Lease, LeaseRequest, PoolConfig

__all__ = ["DefaultSlotPool"]

OPEN_S = 30.0
RESET_S = 30.0

_logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Waiter:
    """A caller in the queue: woken by `granted`, with `error` set when it will not get a slot."""

    granted: Event = field(default_factory=Event)
    error: HermesError | None = None


class DefaultSlotPool:
    """Leases the slots of sandboxes that it starts and stops on demand.

    Args:
        backend: Starts sandboxes; whoever made it has entered it.
        config: How to grow and shrink.
    """

    def __init__(self, backend: SandboxBackend, config: PoolConfig) -> None:
        self._backend = backend
        self._config = config
        self._owner = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._names = count()
        self._ledger = Ledger(
            max_sandboxes=config.max_sandboxes,
            max_starting=config.max_starting,
            kept=SandboxSpec(slots=config.slots_per_sandbox),
            min_kept=config.min_sandboxes,
        )
        self._troubles = StartTroubles(config.capacity_wait_s)
        self._clients: dict[str, SandboxClient] = {}
        self._waiters: dict[Ticket, _Waiter] = {}
        self._leases: set[PoolLease] = set()
        self._trajectories: set[str] = set()
        self._open = False

    @property
    def owner(self) -> str:
        """The name under which the backend knows this pool's sandboxes."""
        return self._owner

    async def __aenter__(self) -> Self:
        """Start the pool's own tasks, and what it always has of sandboxes; others start on demand."""
        self._life = AsyncExitStack()
        self._tasks = await self._life.enter_async_context(background_tasks())
        self._open = True
        self._tasks.start_soon(self._tend)
        self._pump()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every sandbox, whatever is still leased."""
        self._open = False
        self._refuse(self._ledger.refuse(), lambda: LeaseStateError("the slot pool was closed"))
        await self._life.aclose()  # the task of each sandbox stops it on its way out
        for lease in list(self._leases):
            self._end(lease)

    def status(self) -> PoolStatus:
        """Counts right now."""
        slots, leased, resetting = self._ledger.count()
        return PoolStatus(
            sandboxes=self._ledger.sandboxes,
            starting=self._ledger.starting_sandboxes,
            slots=slots,
            leased=leased,
            resetting=resetting,
            waiting=self._ledger.waiting,
        )

    # Leasing

    async def lease(self, request: LeaseRequest) -> Lease:
        """Wait for a slot, first come first served, and open it; see `SlotPool.lease`."""
        spec = self._spec(request)
        trajectory = request.trajectory_id
        if trajectory in self._trajectories:
            raise LeaseStateError(f"trajectory {trajectory!r} has a slot already")
        if trajectory is not None:
            self._trajectories.add(trajectory)
        try:
            return await self._lease(request, spec)
        except BaseException:
            self._trajectories.discard(trajectory or "")
            raise

    def give_back(self, lease: Lease) -> None:
        """End a lease now; see `SlotPool.give_back`."""
        own = cast("PoolLease", lease)
        if own.ended:
            return
        self._trajectories.discard(own.request.trajectory_id or "")
        self._return(own)

    async def settled(self, lease: Lease) -> None:
        """Wait until a lease that was given back is reset or retired."""
        await cast("PoolLease", lease).settled.wait()

    def _spec(self, request: LeaseRequest) -> SandboxSpec:
        """The kind of sandbox that a request needs; refuse what cannot be honoured before anything starts."""
        if not self._open:
            raise LeaseStateError("the slot pool is closed")
        capabilities = self._backend.capabilities
        if request.profile is not None:
            raise UnknownNameError("sandbox profile", request.profile, ())
        if request.image is not None and not capabilities.image_per_task:
            raise ConfigError(f"backend {self._backend.name!r} cannot make a sandbox from a task's own image")
        if request.network not in capabilities.network:
            raise ConfigError(f"backend {self._backend.name!r} has no network policy {request.network!r}")
        return SandboxSpec(slots=self._config.slots_per_sandbox, image=request.image)

    async def _lease(self, request: LeaseRequest, spec: SandboxSpec) -> PoolLease:
        last: Exception | None = None
        for _ in range(ATTEMPTS):
            if not self._open:  # by now: nobody would tell whoever waits again
                raise LeaseStateError("the slot pool was closed")
            slot = await self._claim(request, spec)
            client = self._clients.get(slot.sandbox)
            if client is None:
                continue  # lost between being granted and now
            lease = PoolLease(slot, self._slot_client(client, slot), request)
            self._leases.add(lease)
            try:
                with anyio.fail_after(OPEN_S):
                    await lease.client.open(
                        network="host" if "host" in (request.network, self._config.network) else "none",
                        env={**spec.environment, **request.env},
                        limits={**self._config.limits, **request.limits},
                    )
            except (SandboxLostError, ProtocolError, SlotDeadError, TimeoutError) as error:
                last = error
                self._return(lease)
                if lease.lost is not None:
                    self._drop(slot.sandbox)
            except BaseException:
                self._return(lease)
                raise
            else:
                return lease
        raise SandboxLostError(f"no slot could be opened in {ATTEMPTS} attempts: {last}") from last

    def _slot_client(self, client: SandboxClient, slot: SlotRef) -> SlotClient:
        config = self._config
        kept = OUTPUT_CAP if config.output_bytes is None else config.output_bytes
        return SlotClient(client, slot.index, cpu_s=config.cpu_s, output_cap=kept)

    async def _claim(self, request: LeaseRequest, spec: SandboxSpec) -> SlotRef:
        """Wait in the queue for a free slot."""
        ticket, waiter = self._ledger.enqueue(spec), _Waiter()
        self._waiters[ticket] = waiter
        self._troubles.asked(spec)
        self._pump()
        if ticket.slot is not None:
            return ticket.slot
        try:
            with anyio.move_on_after(request.wait_s):
                await waiter.granted.wait()
        except BaseException:
            self._withdraw(ticket)
            raise
        if waiter.error is not None:
            raise waiter.error
        if ticket.slot is None:
            error = _timeout_error(request, self.status(), self._troubles.reason(spec))
            self._withdraw(ticket)
            raise error
        return ticket.slot

    def _withdraw(self, ticket: Ticket) -> None:
        waiter = self._waiters.pop(ticket, None)
        if ticket.slot is not None or waiter is not None:
            self._ledger.withdraw(ticket)
        self._pump()

    def _refuse(self, tickets: list[Ticket], error: Callable[[], HermesError]) -> None:
        for ticket in tickets:
            waiter = self._waiters.pop(ticket)
            waiter.error = error()  # one each: an exception that several tasks raise collects all their tracebacks
            waiter.granted.set()

    # Returning

    def _return(self, lease: PoolLease) -> None:
        lease.ended = True
        lease.client.cancel_all()
        if self._open and self._ledger.give_back(lease.slot):
            self._tasks.start_soon(self._reset, lease)
        else:
            self._end(lease)

    async def _reset(self, lease: PoolLease) -> None:
        try:
            with anyio.fail_after(RESET_S):
                await lease.client.reset()
            self._ledger.cleaned(lease.slot, now=anyio.current_time(), max_reuses=self._config.max_reuses)
        except Exception as error:
            if lease.lost is None:
                _logger.warning("slot %s is retired: %s", lease.id, error or "its reset was not answered")
            self._ledger.retire(lease.slot)
        finally:
            self._end(lease)
            self._pump()

    def _end(self, lease: PoolLease) -> None:
        lease.ended = True
        self._leases.discard(lease)
        lease.settled.set()

    # Sandboxes

    def _pump(self) -> None:
        """Do what the ledger says; called after every event."""
        if not self._open:
            return
        for ticket in self._ledger.grant():
            self._waiters.pop(ticket).granted.set()
        now = anyio.current_time()
        held = self._troubles.held(now)
        while (spec := self._ledger.wanted(held=held)) is not None:
            name = f"{self._owner}-{next(self._names)}"
            self._ledger.starting(name, spec)
            self._tasks.start_soon(self._keep, name, spec)
        no_room = self._troubles.no_room
        for name in self._ledger.expendable(now=now, idle_s=self._config.idle_s, no_room=no_room):
            client = self._clients[name]
            self._drop(name)
            client.close("the sandbox was idle, and is being stopped")

    async def _tend(self) -> None:
        while True:
            await anyio.sleep(min(max(self._config.idle_s / 4, 0.05), 1.0))
            self._pump()

    async def _pump_at(self, time: float) -> None:
        await anyio.sleep_until(time)
        self._pump()

    async def _keep(self, name: str, spec: SandboxSpec) -> None:
        """Have a sandbox for as long as it lasts."""

        def ready(client: SandboxClient) -> None:
            check_isolation(client.facts.isolation, self._config.require_isolation, self._backend.name)
            self._clients[name] = client
            self._troubles.came_up(spec, anyio.current_time())
            self._ledger.started(name, min(spec.slots, client.facts.capacity), now=anyio.current_time())
            self._pump()

        keeper = SandboxKeeper(self._backend, self._owner, self._tasks, self._config.health_interval_s)
        try:
            await keeper.keep(spec, name, ready, lambda: self._drop(name))
        except Exception as error:
            self._start_failed(error, spec)
        else:
            self._troubles.went(anyio.current_time())
        finally:
            self._ledger.gone(name)
            self._pump()

    def _drop(self, name: str) -> None:
        """Count on a sandbox no more."""
        if self._clients.pop(name, None) is not None:
            self._ledger.stopping(name)

    def _start_failed(self, error: Exception, spec: SandboxSpec) -> None:
        """Tell those who wait, at once or when it keeps happening; or try again later."""
        known = error if isinstance(error, HermesError) else SandboxLostError(f"a sandbox did not start: {error!r}")
        verdict = self._troubles.failed(
            known,
            spec,
            now=anyio.current_time(),
            alive=bool(self._clients),
            coming=self._ledger.starting_sandboxes > 1,  # this one is still counted
            serving=self._ledger.has_ready(spec),
        )
        refused: list[Ticket] = []
        if verdict.refusal is not None:
            refused = self._ledger.refuse(None if verdict.everyone else spec)
            self._refuse(refused, partial(copy, verdict.refusal))
        if known is not error or (verdict.is_news and not refused):  # those who waited for it say it themselves
            _logger.warning("a sandbox did not start: %s", known.message, exc_info=None if known is error else error)
        self._tasks.start_soon(self._pump_at, verdict.retry_at)


def _timeout_error(request: LeaseRequest, status: PoolStatus, trouble: str | None) -> LeaseTimeoutError:
    return LeaseTimeoutError(
        f"no slot became free within {request.wait_s:g} s: {status.slots} slots, {status.leased} leased, "
        f"{status.resetting} being reset; {status.starting} sandboxes starting, {status.waiting} callers waiting"
        + ("" if trouble is None else f"; no other sandbox starts: {trouble}"),
        hint="lease fewer slots at once, or raise slots_per_sandbox or max_sandboxes",
    )

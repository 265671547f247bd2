"""What checks run on: the backend in question, started once, and slots of it."""

from __future__ import annotations

import os
import re
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio

from hermes_core.exceptions import BackendUnavailableError, ConfigError, HermesError
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.sandbox import Sandbox, SandboxClient, SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig
from hermes_core.testing.contract._remembering import RememberingBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from hermes_core.execution import BatchExecutor
    from hermes_core.sandbox import NetworkPolicy, SandboxBackend
    from hermes_core.slots import SlotPool
    from hermes_core.testing.contract._check import Level, Need

__all__ = ["ContractRig", "KillSlots", "PrivatePool", "open_rig"]

KillSlots: TypeAlias = Callable[[Sandbox], Awaitable[None]]
"""Kills the slots of a sandbox from outside (its supervisors), and not the sandbox."""

CANARY = "HERMES_CONTRACT_CANARY"
NOT_ENFORCED = re.compile(r"\b(not|no|cannot|needs)\b")
WAIT_S = 60.0
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class PrivatePool:
    """A pool of one check's own.

    Attributes:
        pool: The pool.
        sandboxes: What it started so far, in order.
    """

    pool: SlotPool
    sandboxes: list[Sandbox]


@dataclass(eq=False)
class ContractRig:
    """A backend, pools on it, and what checks need often.

    Attributes:
        make_backend: Makes another backend just like `backend`.
        backend: The backend in question.
        pool: A pool of several slots that the checks share.
        single: A pool with one slot only: two leases of it are two leases of the same slot.
        executor: For the slots.
        secret: A text that is in the environment of this process and in `secret_file`, and should be in no slot.
        secret_file: A file of this machine that everyone may read.
        kill_slots: Kills slots, if the caller knows how.
        level: The level of isolation that slots say they have.
        networks: The network policies of slots, each with why it cannot be had here, or None.
        limits: What the daemon says it enforces, and by what.
        python: Whether slots have a `python3`.
        neighbours: Whether a sandbox has more than one slot.
    """

    make_backend: Callable[[], SandboxBackend]
    backend: SandboxBackend
    pool: SlotPool
    single: SlotPool
    executor: BatchExecutor
    secret: str
    secret_file: Path
    kill_slots: KillSlots | None = None
    level: Level = "namespaces"
    networks: Mapping[NetworkPolicy, str | None] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    python: bool = False
    neighbours: bool = True
    _leased: list[Slot] = field(default_factory=list)

    @property
    def network(self) -> NetworkPolicy:
        """The policy of slots that are leased without naming one: none where it can be had."""
        return "none" if self.networks.get("none") is None else "host"

    async def lease(
        self,
        *,
        pool: SlotPool | None = None,
        network: NetworkPolicy | None = None,
        env: Mapping[str, str] | None = None,
        trajectory_id: str | None = None,
        wait_s: float | None = WAIT_S,
    ) -> Slot:
        """Lease a slot; it is given back when the check ends.

        Args:
            pool: Of which pool; None for the shared one.
            network: Its network policy; None for `network`.
            env: Variables of every command.
            trajectory_id: Whose it is.
            wait_s: How long to wait for one.
        """
        pool = pool or self.pool
        request = LeaseRequest(
            network=network or self.network, env=env or {}, trajectory_id=trajectory_id, wait_s=wait_s
        )
        slot = Slot(await pool.lease(request), pool, self.executor, {})
        self._leased.append(slot)
        return slot

    async def release_all(self) -> None:
        """Give back what was leased, and wait until it is reset."""
        leased, self._leased = self._leased, []
        with anyio.move_on_after(PATIENCE_S, shield=True) as scope:
            for slot in leased:
                await slot.release()
        if scope.cancelled_caught:
            raise AssertionError(f"a slot was not reset within {PATIENCE_S:g} s")

    @asynccontextmanager
    async def open_pool(
        self, *, slots: int = 1, max_sandboxes: int = 1, idle_s: float = 120.0, max_reuses: int | None = None
    ) -> AsyncIterator[PrivatePool]:
        """Open a pool that starts sandboxes of its own."""
        remembering = RememberingBackend(self.backend)
        config = PoolConfig(slots_per_sandbox=slots, max_sandboxes=max_sandboxes, idle_s=idle_s, max_reuses=max_reuses)
        async with DefaultSlotPool(remembering, config) as pool:
            yield PrivatePool(pool, remembering.sandboxes)

    @asynccontextmanager
    async def open_sandbox(self, *, slots: int = 1, owner: str | None = None) -> AsyncIterator[Sandbox]:
        """Start a sandbox without any pool, and stop it."""
        owner = owner or f"contract-{uuid.uuid4().hex[:8]}"
        sandbox = await self.backend.start(SandboxSpec(slots=slots), owner, f"{owner}-0")
        try:
            yield sandbox
        finally:
            with anyio.CancelScope(shield=True):
                await sandbox.stop()

    @asynccontextmanager
    async def open_client(self, sandbox: Sandbox) -> AsyncIterator[SandboxClient]:
        """Connect to a sandbox in a session of its own."""
        client = SandboxClient(sandbox)
        async with anyio.create_task_group() as tasks:
            await tasks.start(client.run)
            try:
                yield client
            finally:
                client.close("the check is over")

    def marker(self) -> str:
        """Return a number that is in no command line yet: `sleep MARKER` is found by `count`."""
        return f"4{uuid.uuid4().int % 10**9:09d}"

    async def count(self, slot: Slot, marker: str) -> int:
        """Return how many processes that a slot can see have a marker in their command line."""
        seen = await slot.exec("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
        return seen.stdout.count(marker)

    async def gone(self, slot: Slot, marker: str) -> None:
        """Wait until no process that a slot can see has a marker in its command line."""
        left = 1
        with anyio.move_on_after(PATIENCE_S):
            while left := await self.count(slot, marker):  # noqa: ASYNC110 - of what others do there are no events
                await anyio.sleep(0.02)
        assert left == 0, f"processes still run after {PATIENCE_S:g} s"

    async def eventually(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so."""
        with anyio.move_on_after(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - of what others do there are no events
                await anyio.sleep(0.005)
        assert condition(), f"{what}: not within {PATIENCE_S:g} s"

    def missing(self, need: Need) -> str | None:
        """Say why there is none of what a check needs; None if there is."""
        match need:
            case "network none":
                return self.networks["none"]
            case "network host":
                return self.networks["host"]
            case "python3":
                return None if self.python else "slots have none"
            case "a neighbour":
                return None if self.neighbours else "sandboxes have one slot each"
            case "kill_slots":
                return None if self.kill_slots is not None else "open_rig was not given it"
            case _:
                how = self.limits.get(need.removeprefix("limit "), "the daemon does not say that it is enforced")
                return how if not how or NOT_ENFORCED.search(how) else None


@asynccontextmanager
async def open_rig(
    make_backend: Callable[[], SandboxBackend],
    *,
    slots_per_sandbox: int = 4,
    max_sandboxes: int = 1,
    kill_slots: KillSlots | None = None,
) -> AsyncIterator[ContractRig]:
    """Start a backend for the checks; at least two slots must be to be had at once.

    Args:
        make_backend: Makes it: its class, or a function that gives it a configuration.
        slots_per_sandbox: Slots of each sandbox that the checks share.
        max_sandboxes: How many of these there may be.
        kill_slots: Kills slots of a sandbox from outside, for the checks of what happens then.

    Raises:
        BackendUnavailableError: It cannot work here.
    """
    config = PoolConfig(slots_per_sandbox=slots_per_sandbox, max_sandboxes=max_sandboxes)
    with _secret() as (secret, secret_file):
        async with (
            make_backend() as backend,
            DefaultSlotPool(backend, config) as pool,
            DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as single,
            DefaultBatchExecutor() as executor,
        ):
            rig = ContractRig(make_backend, backend, pool, single, executor, secret, secret_file, kill_slots)
            rig.neighbours = slots_per_sandbox > 1
            rig.networks = {"none": await _refusal(rig, "none"), "host": await _refusal(rig, "host")}
            slot = await rig.lease()
            rig.level = cast("Level", slot.isolation)
            rig.limits = slot.lease.client.sandbox.facts.limits
            rig.python = (await slot.exec("python3 -c 'import socket'")).exit_code == 0
            await rig.release_all()
            yield rig


async def _refusal(rig: ContractRig, network: NetworkPolicy) -> str | None:
    """Return why a slot with that policy cannot be had here, or None."""
    try:
        await rig.lease(network=network)
    except (BackendUnavailableError, ConfigError) as error:
        return cast("HermesError", error).message
    await rig.release_all()
    return None


@contextmanager
def _secret() -> Iterator[tuple[str, Path]]:
    """Put something into the environment and the temporary folder that no slot should see."""
    secret = f"canary-{uuid.uuid4().hex}"
    descriptor, name = tempfile.mkstemp(prefix="hermes-contract-")
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(secret)
    path = Path(name)
    path.chmod(0o644)
    os.environ[CANARY] = secret
    try:
        yield secret, path
    finally:
        del os.environ[CANARY]
        path.unlink()

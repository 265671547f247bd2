"""What a `Hermes` runs on between entering and leaving it."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hermes_core._model_keeper import ModelKeeper
from hermes_core.concurrency import background_tasks
from hermes_core.execution import ExecutorConfig
from hermes_core.observers import ObserverHub, WatchedBackend
from hermes_core.sandbox import SlotSettings
from hermes_core.slots import PoolConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from anyio.abc import TaskGroup

    from hermes_core._catalogue import Catalogue
    from hermes_core.config import Settings
    from hermes_core.execution import BatchExecutor
    from hermes_core.observers import Observer
    from hermes_core.sandbox import SandboxBackend
    from hermes_core.slots import SlotPool

__all__ = ["Engine", "started_engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """Started parts.

    Attributes:
        observers: Told of everything.
        executor: Runs tool calls.
        pool: Leases slots; None without a backend.
        models: Starts models when they are first needed.
        tasks: Owns what outlives a call: models, the workers of streams.
    """

    observers: ObserverHub
    executor: BatchExecutor
    pool: SlotPool | None
    models: ModelKeeper
    tasks: TaskGroup


@asynccontextmanager
async def started_engine(
    catalogue: Catalogue, settings: Settings, backend: SandboxBackend | None, observers: Iterable[Observer]
) -> AsyncGenerator[Engine]:
    """Start the parts in the order in which they need each other; end them in the reverse order.

    Raises:
        BackendUnavailableError: The backend cannot work here.
        UnknownNameError: The settings name a pool or an executor that nobody registers.
    """
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(ObserverHub(observers))
        executor = catalogue.load("batch executor", settings.batch_executor)
        started_executor = await stack.enter_async_context(
            executor(ExecutorConfig(max_in_flight=settings.max_in_flight))
        )
        pool: SlotPool | None = None
        if backend is not None:
            watched = await stack.enter_async_context(WatchedBackend(backend, hub))
            pool_class = catalogue.load("slot pool", settings.slot_pool)
            pool = await stack.enter_async_context(pool_class(watched, _pool_config(backend)))
        tasks = await stack.enter_async_context(background_tasks())
        yield Engine(hub, started_executor, pool, ModelKeeper(catalogue, tasks), tasks)


def _pool_config(backend: SandboxBackend) -> PoolConfig:
    """The pool's size is a setting of the backend; what it does not say keeps the pool's defaults."""
    known = {field.name for field in fields(PoolConfig)}
    config = backend.config
    limits = config.slot_limits() if isinstance(config, SlotSettings) else {}
    return PoolConfig(**{name: value for name, value in dict(config).items() if name in known}, limits=limits)

"""Hands events to observers without ever waiting for one."""

from __future__ import annotations

import logging
import re
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Self

import anyio

from hermes_core.concurrency import background_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from types import TracebackType

    from anyio.abc import TaskGroup
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from hermes_core.observers._events import Event
    from hermes_core.observers._observer import Observer

__all__ = ["ObserverHub"]

logger = logging.getLogger("hermes_core.observers")

_DRAIN_S = 5.0


class ObserverHub:
    """One bounded queue and one task for each observer; an async context manager.

    Args:
        observers: Who watches for as long as it lives.
        queue_size: Events that an observer may be behind; further ones are dropped for it, and counted.
    """

    def __init__(self, observers: Iterable[Observer] = (), *, queue_size: int = 4096) -> None:
        self._observers = tuple(observers)
        self._queue_size = queue_size
        self._watches: list[_Watch] = []
        self._tasks: TaskGroup
        self.dropped: dict[str, int] = {}
        """Events that were lost, by observer class."""

    def post(self, event: Event) -> None:
        """Tell every observer. Never waits, never fails."""
        for watch in self._watches:
            try:
                watch.queue.send_nowait(event)
            except anyio.WouldBlock:
                name = type(watch.observer).__name__
                self.dropped[name] = self.dropped.get(name, 0) + 1
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                continue

    @asynccontextmanager
    async def watched_by(self, observers: Iterable[Observer]) -> AsyncGenerator[None]:
        """Let further observers watch for a while; on exit they catch up, for 5 s at most."""
        watches = [self._watch(observer) for observer in observers]
        try:
            yield
        finally:
            await self._end(watches)

    async def __aenter__(self) -> Self:
        """Start the observers' tasks."""
        self._life = AsyncExitStack()
        self._tasks = await self._life.enter_async_context(background_tasks())
        for observer in self._observers:
            self._watch(observer)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the observers catch up, for 5 s at most, then stop them."""
        try:
            await self._end(self._watches)
        finally:
            await self._life.aclose()
        for name, count in self.dropped.items():
            logger.warning("observer %s fell behind and lost %d events", name, count)

    def _watch(self, observer: Observer) -> _Watch:
        watch = _Watch(observer, self._queue_size)
        self._watches.append(watch)
        self._tasks.start_soon(watch.run)
        return watch

    async def _end(self, watches: list[_Watch]) -> None:
        ending = list(watches)
        self._watches = [watch for watch in self._watches if watch not in ending]
        for watch in ending:
            watch.queue.close()  # it ends when it has emptied its closed queue
        with anyio.move_on_after(_DRAIN_S):
            for watch in ending:
                await watch.ended.wait()


class _Watch:
    """One observer, behind a queue of its own."""

    def __init__(self, observer: Observer, queue_size: int) -> None:
        self.observer = observer
        self.ended = anyio.Event()
        self.queue: MemoryObjectSendStream[Event]
        self._events: MemoryObjectReceiveStream[Event]
        self.queue, self._events = anyio.create_memory_object_stream["Event"](queue_size)

    async def run(self) -> None:
        """Tell the observer, one event after the other, until the queue is closed and empty."""
        try:
            with self._events:
                async for event in self._events:
                    await self._tell(event)
        finally:
            self.ended.set()

    async def _tell(self, event: Event) -> None:
        method = _method_name(type(event).__name__)
        try:
            await getattr(self.observer, method)(event)
        except Exception:
            logger.exception("observer %s failed in %s", type(self.observer).__name__, method)


def _method_name(event_class: str) -> str:
    """`ToolCallStarted` is told to `tool_call_started`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event_class).lower()

"""Hands events to observers without ever waiting for one."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Self

import anyio

if TYPE_CHECKING:
    from collections.abc import Iterable
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
        observers: Who watches.
        queue_size: Events that an observer may be behind; further ones are dropped for it, and counted.
    """

    def __init__(self, observers: Iterable[Observer] = (), *, queue_size: int = 4096) -> None:
        self._observers = tuple(observers)
        self._queue_size = queue_size
        self._queues: list[tuple[Observer, MemoryObjectSendStream[Event]]] = []
        self._tasks: TaskGroup
        self.dropped: dict[str, int] = {}
        """Events that were lost, by observer class."""

    def post(self, event: Event) -> None:
        """Tell every observer. Never waits, never fails."""
        for observer, queue in self._queues:
            try:
                queue.send_nowait(event)
            except anyio.WouldBlock:
                name = type(observer).__name__
                self.dropped[name] = self.dropped.get(name, 0) + 1
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                continue

    async def __aenter__(self) -> Self:
        """Start the observers' tasks."""
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        for observer in self._observers:
            send, receive = anyio.create_memory_object_stream["Event"](self._queue_size)
            self._queues.append((observer, send))
            self._tasks.start_soon(_watch, observer, receive)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the observers catch up, for 5 s at most, then stop them."""
        queues, self._queues = self._queues, []
        for _, queue in queues:
            queue.close()  # a watcher ends when it has emptied its closed queue
        self._tasks.cancel_scope.deadline = anyio.current_time() + _DRAIN_S
        # Without the body's exception, which a task group would wrap.
        await self._tasks.__aexit__(None, None, None)
        for name, count in self.dropped.items():
            logger.warning("observer %s fell behind and lost %d events", name, count)


async def _watch(observer: Observer, events: MemoryObjectReceiveStream[Event]) -> None:
    with events:
        async for event in events:
            method = _method_name(type(event).__name__)
            try:
                await getattr(observer, method)(event)
            except Exception:
                logger.exception("observer %s failed in %s", type(observer).__name__, method)


def _method_name(event_class: str) -> str:
    """`ToolCallStarted` is told to `tool_call_started`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", event_class).lower()

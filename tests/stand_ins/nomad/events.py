"""The event stream: a bounded buffer of changes, and the streams that follow it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Batch", "Event", "EventBuffer", "Topics", "read_topics"]

Topics = dict[str, frozenset[str]]
"""For each topic the keys that are asked for, `*` for all."""


@dataclass(frozen=True, slots=True)
class Event:
    """One changed document, already written as JSON: what it says is of the moment of the change."""

    topic: str
    keys: frozenset[str]
    namespace: str
    text: str

    def wanted(self, topics: Topics, namespace: str) -> bool:
        """Tell whether a stream with these topics and this namespace (`*`: any) gets it."""
        if namespace not in ("*", self.namespace) and self.namespace:
            return False
        keys = topics.get(self.topic, frozenset()) | topics.get("*", frozenset())
        return bool(keys & self.keys) or "*" in keys


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes of one index."""

    index: int
    events: tuple[Event, ...]


@dataclass(slots=True)
class EventBuffer:
    """The latest batches, at most `size`, and a signal for those who wait for the next."""

    size: int
    batches: deque[Batch] = field(default_factory=deque)
    last: int = 0
    streams: set[asyncio.Event] = field(default_factory=set)
    cut: int = 0

    def publish(self, batch: Batch) -> None:
        """Append one batch and wake the streams."""
        self.last = batch.index
        if batch.events:
            self.batches.append(batch)
            while len(self.batches) > self.size:
                self.batches.popleft()
        for waiting in self.streams:
            waiting.set()

    def cut_streams(self) -> int:
        """End every stream that is open now; returns how many there were."""
        self.cut += 1
        for waiting in self.streams:
            waiting.set()
        return len(self.streams)

    def since(self, index: int) -> list[Batch]:
        """Return the batches from `index` on, or from the oldest that is still held."""
        found = []
        for batch in reversed(self.batches):
            if batch.index < index:
                break
            found.append(batch)
        return found[::-1]

    async def follow(self, topics: Topics, namespace: str, index: int, heartbeat: float) -> AsyncIterator[str]:
        """Yield one line for each batch that has wanted events, and `{}` every `heartbeat` seconds."""
        waiting = asyncio.Event()
        self.streams.add(waiting)
        cut, loop = self.cut, asyncio.get_running_loop()
        try:
            yield "{}\n"
            beat = loop.time() + heartbeat
            while self.cut == cut:
                waiting.clear()
                for batch in self.since(index):
                    index = batch.index + 1
                    if events := [event.text for event in batch.events if event.wanted(topics, namespace)]:
                        yield f'{{"Index":{batch.index},"Events":[{",".join(events)}]}}\n'
                try:
                    await asyncio.wait_for(waiting.wait(), beat - loop.time())
                except TimeoutError:
                    beat = loop.time() + heartbeat
                    yield "{}\n"
        finally:
            self.streams.discard(waiting)


def read_topics(given: list[str]) -> Topics:
    """Read `topic=Allocation&topic=Job:ID`; no topic means all."""
    topics: dict[str, set[str]] = {}
    for text in given or ["*"]:
        name, _, key = text.partition(":")
        topics.setdefault(name, set()).add(key or "*")
    return {name: frozenset(keys) for name, keys in topics.items()}

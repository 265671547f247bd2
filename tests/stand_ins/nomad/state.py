"""What the cluster knows: tables of documents with indexes, kept in a database that outlives the process."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .documents import Doc, now
from .events import Batch, Event

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .events import EventBuffer

__all__ = ["TABLES", "State", "Transaction", "key_of"]

TABLES = ("jobs", "evaluations", "allocations", "nodes", "variables")
TOPICS = {"jobs": "Job", "evaluations": "Evaluation", "allocations": "Allocation", "nodes": "Node"}


def key_of(namespace: str, name: str) -> str:
    """Return the key of what has a name in a namespace (jobs, variables)."""
    return f"{namespace}/{name}"


def event_of(table: str, kind: str, doc: Doc, index: int, *, kept: bool) -> Event | None:
    """Describe one change; allocations are sent without their job."""
    topic = TOPICS.get(table)
    if topic is None:
        return None
    name = str(doc["ID"])
    further = [str(doc["JobID"]), ""] if table in ("evaluations", "allocations") else None
    if not kept and table == "allocations":
        return None
    shown = {name: value for name, value in doc.items() if name != "Job"} if table == "allocations" else doc
    event = {
        "Topic": topic,
        "Type": kind,
        "Key": name,
        "Namespace": doc.get("Namespace", ""),
        "FilterKeys": further,
        "Index": index,
        "Payload": {topic: shown} if kept else {topic: shown, "Deleted": True},
    }
    keys = frozenset((name, *(further or ())))
    return Event(topic, keys, doc.get("Namespace", ""), json.dumps(event, separators=(",", ":")))


class Transaction:
    """Changes that get one index and one line of the event stream."""

    def __init__(self, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.changed: list[tuple[str, str, Doc, bool]] = []
        self.mentioned: list[tuple[str, Doc]] = []

    def put(self, table: str, doc: Doc) -> None:
        """Write a document as it is now."""
        name = {"jobs": "ID", "variables": "Path"}.get(table)
        key = key_of(doc["Namespace"], doc[name]) if name else doc["ID"]
        doc.setdefault("CreateIndex", self.index)
        doc["ModifyIndex"] = self.index
        if table in ("evaluations", "allocations", "variables"):
            doc.setdefault("CreateTime", now())
            doc["ModifyTime"] = now()
        if not any(changed is doc for _, _, changed, _ in self.changed):
            self.changed.append((table, key, doc, True))

    def mention(self, table: str, doc: Doc) -> None:
        """Have an unchanged document in the event stream."""
        self.mentioned.append((table, doc))

    def drop(self, table: str, key: str, doc: Doc) -> None:
        """Remove a document; its last version is what the event shows."""
        self.changed.append((table, key, doc, False))


class State:
    """All documents, in memory and in the database."""

    def __init__(self, database: Path, events: EventBuffer) -> None:
        self.events = events
        self.index = 0
        self.table_index: dict[str, int] = dict.fromkeys(TABLES, 0)
        self.tables: dict[str, dict[str, Doc]] = {table: {} for table in TABLES}
        self.of_job: defaultdict[str, dict[str, Doc]] = defaultdict(dict)
        self.evaluations_of_job: defaultdict[str, dict[str, Doc]] = defaultdict(dict)
        self.of_node: defaultdict[str, dict[str, Doc]] = defaultdict(dict)
        self._waiting: set[asyncio.Event] = set()
        self._database = sqlite3.connect(database, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")  # only the process may die, not the machine
        self._database.execute("CREATE TABLE IF NOT EXISTS documents (kind, key, text, PRIMARY KEY (kind, key))")
        self._load()

    def _load(self) -> None:
        for kind, key, text in self._database.execute("SELECT kind, key, text FROM documents"):
            if kind in self.tables:
                doc = json.loads(text)
                self.tables[kind][key] = doc
                self._relate(kind, key, doc, True)
                self.table_index[kind] = max(self.table_index[kind], doc["ModifyIndex"])
            elif kind == "index":
                self.index = int(text)

    @contextmanager
    def change(self, kind: str) -> Iterator[Transaction]:
        """Collect changes; they count once the block is left without an error."""
        transaction = Transaction(kind, self.index + 1)
        yield transaction
        if transaction.changed:
            self._commit(transaction)

    def _commit(self, transaction: Transaction) -> None:
        self.index = transaction.index
        events = []
        self._database.execute("BEGIN")
        for table, key, doc, kept in transaction.changed:
            self.table_index[table] = self.index
            self._relate(table, key, doc, kept)
            if kept:
                self.tables[table][key] = doc
                self._write(table, key, doc)
            else:
                self.tables[table].pop(key, None)
                self._database.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (table, key))
            if (event := event_of(table, transaction.kind, doc, self.index, kept=kept)) is not None:
                events.append(event)
        for table, doc in transaction.mentioned:
            if (event := event_of(table, transaction.kind, doc, self.index, kept=True)) is not None:
                events.append(event)
        self._write("index", "", self.index)
        self._database.execute("COMMIT")
        self.events.publish(Batch(self.index, tuple(events)))
        for waiting in self._waiting:
            waiting.set()

    def _relate(self, table: str, key: str, doc: Doc, kept: bool) -> None:
        if table == "evaluations":
            self.evaluations_of_job[key_of(doc["Namespace"], doc["JobID"])][key] = doc
        if table != "allocations":
            return
        job, node = self.of_job[key_of(doc["Namespace"], doc["JobID"])], self.of_node[doc["NodeID"]]
        if kept:
            job[key] = doc
        else:
            job.pop(key, None)
        if kept and doc["ClientStatus"] in ("pending", "running", "unknown"):
            node[key] = doc
        else:
            node.pop(key, None)

    def _write(self, kind: str, key: str, value: object) -> None:
        text = json.dumps(value, separators=(",", ":"))
        self._database.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", (kind, key, text))

    def remember(self, kind: str, key: str, value: object | None) -> None:
        """Keep something of the client's own that has no index; `None` forgets it."""
        if value is None:
            self._database.execute("DELETE FROM documents WHERE kind = ? AND key = ?", (kind, key))
        else:
            self._write(kind, key, value)

    def remembered(self, kind: str) -> Doc:
        """Return everything of one kind that `remember` has kept."""
        rows = self._database.execute("SELECT key, text FROM documents WHERE kind = ?", (kind,))
        return {key: json.loads(text) for key, text in rows}

    async def wait(self, table: str, index: int, seconds: float) -> None:
        """Wait until a table has a newer index than `index`, at most `seconds`."""
        waiting = asyncio.Event()
        self._waiting.add(waiting)
        try:
            async with asyncio.timeout(seconds):
                while self.table_index[table] <= index:
                    waiting.clear()
                    await waiting.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiting)

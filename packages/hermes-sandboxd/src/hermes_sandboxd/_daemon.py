"""The daemon: its sockets, its sessions, its slots."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes_sandboxd._deadlines import Deadlines
from hermes_sandboxd._levels import enforced
from hermes_sandboxd._protocol import PROTOCOL_VERSION, VERSION, Refusal
from hermes_sandboxd._session import Request, Session
from hermes_sandboxd._slot import UNCLEAN, Slot

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from hermes_sandboxd._cgroups import ControlGroups
    from hermes_sandboxd._connection import Connection
    from hermes_sandboxd._levels import Isolation
    from hermes_sandboxd._root import Root
    from hermes_sandboxd._state import StateFolder
    from hermes_sandboxd._supervision import ZygoteLink
    from hermes_sandboxd._users import Users

_FLUSH_S = 0.2


class Options(NamedTuple):
    """How a daemon was asked to serve."""

    capacity: int
    orphan_grace_s: float
    socket_token: str | None
    tcp_token: str | None
    environment: dict[str, str]
    """Variables of every slot, beneath those of its lease."""


class Daemon:
    """Answers what is not a slot's own affair, and hands the rest to the slots."""

    def __init__(
        self,
        daemon_id: str,
        options: Options,
        state: StateFolder,
        root: Root,
        zygote: ZygoteLink,
        bubblewrap: str | None,
        users: Users | None,
        isolation: Isolation,
        groups: ControlGroups | None,
    ) -> None:
        self.options = options
        self.environment = options.environment
        self.state = state
        self.root = root
        self.zygote = zygote
        self.bubblewrap = bubblewrap
        self.level = isolation.level
        self.obstacle = isolation.obstacle
        """Why no slot can be opened here, or None."""
        self.seccomp = isolation.seccomp_obstacle is None
        self.groups = groups
        self.users = users
        self._enforced = enforced(isolation, groups)
        self.deadlines = Deadlines()
        self.id = daemon_id
        self.connections: set[Connection] = set()
        self.ending = asyncio.Event()
        self._sessions: dict[str, Session] = {}
        self._slots: dict[int, Slot] = {}
        self._started = time.monotonic()
        self.alone_since: float | None = asyncio.get_running_loop().time()
        """Since when no session has had a connection; None while one has."""
        self._tasks: set[asyncio.Task[None]] = set()

    def log(self, text: str) -> None:
        """Write one line to standard error."""
        sys.stderr.write(f"hermes-sandboxd: {text}\n")
        sys.stderr.flush()

    # Sessions.

    def session(self, name: str) -> tuple[Session, bool]:
        """Return the session of that name, and whether it existed before."""
        found = self._sessions.get(name)
        if found is not None:
            return found, True
        session = self._sessions[name] = Session(name, self.options.orphan_grace_s, self._expire)
        return session, False

    def attended(self) -> None:
        """See whether any session has a connection, after one got or lost its own."""
        if any(session.connection is not None for session in self._sessions.values()):
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = asyncio.get_running_loop().time()

    def describe(self, resumed: bool) -> dict[str, Any]:
        """Return the answer to hello."""
        return {
            "protocol": PROTOCOL_VERSION,
            "version": VERSION,
            "daemon_id": self.id,
            "resumed": resumed,
            "isolation": self.level,
            "obstacle": self.obstacle,
            "missing": self.root.missing,
            "capacity": self.options.capacity,
            "limits": self._enforced,
        }

    def _expire(self, session: Session) -> None:
        self.log(f"session {session.name}: nobody came back, closing its slots")
        del self._sessions[session.name]
        self._spawn(self._close(self._slots_of(session)))

    def _slots_of(self, session: Session) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.owner is session]

    def _leave(self, request: Request) -> None:
        """Forget a session at once, and answer when its slots are closed."""
        session = request.session
        del self._sessions[session.name]
        session.ended = True
        self.attended()
        self._spawn(self._finish(request, self._slots_of(session)))

    async def _finish(self, request: Request, slots: list[Slot]) -> None:
        await self._close(slots)
        request.succeed({"unclean": [slot.index for slot in slots if slot.state == UNCLEAN]})

    async def _close(self, slots: Collection[Slot]) -> None:
        for slot in slots:
            slot.abandon()
        settled = await asyncio.gather(*(slot.settle() for slot in slots), return_exceptions=True)
        for error in filter(None, settled):
            self.log(f"a slot could not be closed: {error!r}")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Requests.

    def dispatch(self, request: Request) -> None:
        """Serve a request, or hand it to its slot.

        Raises:
            Refusal: It cannot be served.
        """
        if self.ending.is_set():
            raise Refusal("shutting_down", "the daemon is ending")
        if request.session.ended:
            raise Refusal("session_ended", "the session has ended")
        if request.method == "health":
            self._spawn(self._health(request))
        elif request.method == "session.end":
            self._leave(request)
        elif request.method == "shutdown":
            self.ending.set()
            request.succeed({})
        else:
            self._slot(request.params["slot"]).submit(request)

    def _slot(self, index: int) -> Slot:
        if index >= self.options.capacity:
            raise Refusal("unknown_slot", f"slot {index} is out of range: the capacity is {self.options.capacity}")
        slot = self._slots.get(index)
        if slot is None:
            slot = self._slots[index] = Slot(self, index)
        return slot

    async def _health(self, request: Request) -> None:
        now = time.monotonic()
        slots = {}
        # Duplicated, since a slot may be closed, and its numbers given to other files, while the thread reads.
        files = []
        for index, slot in sorted(self._slots.items()):
            if slot.owner is None and slot.state == "closed":
                continue
            age = round(now - slot.opened_at, 3) if slot.opened_at else 0.0
            session = slot.owner.name if slot.owner is not None else None
            slots[str(index)] = {"state": slot.state, "session": session, "age_s": age, "running": slot.running}
            if slot.lease is not None:
                files += [os.dup(file) for file in slot.lease.memory_files()]
        pss = await asyncio.get_running_loop().run_in_executor(None, _memory, files)
        request.succeed(
            {
                "uptime_s": round(now - self._started, 3),
                "slots": slots,
                "capacity": self.options.capacity,
                "pss_bytes": pss,
                "isolation": self.level,
                "limits": self._enforced,
            }
        )

    # The end.

    async def end(self) -> None:
        """Close every slot and every connection."""
        self.ending.set()
        await self._close(self._slots.values())
        if self.connections:
            for connection in self.connections:
                connection.close()
            await asyncio.wait([connection.lost for connection in self.connections], timeout=_FLUSH_S)


def _memory(files: list[int]) -> int:
    total = 0
    for file in files:
        try:
            for line in os.pread(file, 4096, 0).splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:  # noqa: PERF203 - beside a system call it costs nothing
            # The process has ended.
            pass
        finally:
            os.close(file)
    return total

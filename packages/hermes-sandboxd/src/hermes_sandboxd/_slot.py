"""One slot, as the daemon sees it: a queue of requests, and the supervisor that serves them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from hermes_sandboxd._lease import Lease
from hermes_sandboxd._place import Place
from hermes_sandboxd._protocol import DEADLINE_GRACE_S, Refusal
from hermes_sandboxd._session import Chunk, Request, Session

if TYPE_CHECKING:
    from hermes_sandboxd._lease import Host

_GRADING_BYTES = 64 << 20
_NOTHING: dict[str, Any] = {}

CLOSED, OPENING, OPEN, DEAD, RESETTING, UNCLEAN = "closed", "opening", "open", "dead", "resetting", "unclean"


class Slot:
    """Serves the requests of one slot one at a time, in order of arrival."""

    def __init__(self, host: Host, index: int) -> None:
        self._host = host
        self.index = index
        self.state = CLOSED
        self.owner: Session | None = None
        self.lease: Lease | None = None
        self._place: Place | None = None
        self.opened_at = 0.0
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._overdue = self._kill
        self._task: asyncio.Task[None] | None = None
        """What opens, closes or grades the slot."""
        self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> str | None:
        """The method of the request that is being served."""
        return None if self._current is None else self._current.method

    # Requests and what belongs to them.

    def submit(self, request: Request) -> None:
        """Serve the request when its turn has come."""
        if self.owner is None and request.method == "slot.open" and self.state == CLOSED:
            self.owner = request.session
        if self.owner is not request.session:
            if self.state == UNCLEAN:
                raise Refusal("unclean", f"slot {self.index} could not be cleaned and is out of use")
            kind = "slot_busy" if request.method == "slot.open" and self.owner is not None else "unknown_slot"
            raise Refusal(kind, f"slot {self.index} is not open in this session")
        request.slot = self
        self._queue.append(request)
        if self._current is None:
            self._next()

    def data(self, request: Request, data: bytes, end: bool) -> None:
        """Pass a chunk of a request's body on, or keep it until its turn has come."""
        if not data and not end:
            return
        if request is not self._current or request.method == "slot.grade":
            request.incoming.append((data, end))
            if request is self._current:
                self._collect(request)
        elif self.lease is not None:
            self.lease.link.send(_about("data", request, channel="body", end=end), data)

    def credit(self, request: Request, count: int) -> None:
        """Pass credit on to the supervisor."""
        if request is self._current and self.lease is not None:
            self.lease.link.send(_about("credit", request, bytes=count))

    def cancel(self, request: Request) -> None:
        """End a request soon; it still gets its answer."""
        if request.answer is not None or request.cancelled:
            return
        request.cancelled = True
        if request is not self._current:
            self._queue.remove(request)
            request.refuse(Refusal("cancelled", "cancelled before it started"))
        elif self._is_served_by_supervisor(request) and self.lease is not None:
            self.lease.link.send(_about("cancel", request))
            self._enforce(DEADLINE_GRACE_S)

    def abandon(self) -> None:
        """The owner is gone for good, or the daemon ends: refuse what waits and kill what runs."""
        while self._queue:
            self._queue.popleft().refuse(Refusal("shutting_down", "the session has ended"))
        if self._current is not None and self._is_served_by_supervisor(self._current):
            # Told before the slot dies of it: this end is not the agent's doing.
            self._answer_refusal(Refusal("shutting_down", "the session has ended"))
            self._kill()

    # Serving.

    def _next(self) -> None:
        while self._queue and self._current is None:
            request = self._current = self._queue.popleft()
            try:
                self._serve(request)
            except Refusal as error:
                self._answer_refusal(error)
        if self._current is None and self.state == CLOSED:
            self.owner = None

    def _serve(self, request: Request) -> None:
        if request.method == "slot.reset":
            if self.state == UNCLEAN:
                raise Refusal("unclean", f"slot {self.index} could not be cleaned and is out of use")
            self._task = self._loop.create_task(self._reset(request))
        elif request.method == "slot.open":
            if self.state != CLOSED:
                raise Refusal("slot_busy", f"slot {self.index} is open")
            self._task = self._loop.create_task(self._open(request))
        elif request.method == "slot.grade":
            self._take_files(request)
        elif self.state == DEAD:
            raise Refusal("slot_dead", f"slot {self.index} is dead and must be reset", **self._cause())
        elif self.state != OPEN or self.lease is None:
            raise Refusal("unknown_slot", f"slot {self.index} is not open")
        else:
            self._hand_over(request, self.lease)

    def _hand_over(self, request: Request, lease: Lease) -> None:
        message = {"id": request.id, "method": request.method, "params": request.params}
        lease.link.send(message, request.body or None)
        while request.incoming:
            data, end = request.incoming.popleft()
            lease.link.send(_about("data", request, channel="body", end=end), data)
        if request.method == "slot.exec":
            self._enforce(request.params["timeout_s"] + DEADLINE_GRACE_S)

    def _is_served_by_supervisor(self, request: Request) -> bool:
        return request.method not in ("slot.open", "slot.grade", "slot.reset")

    def _received(self, message: dict[str, Any], body: bytes | None) -> None:
        request = self._current
        if request is None:
            return
        if "id" in message:
            if message["id"] == request.id:
                self._relax()
                self._current = None
                if self.lease is not None and message.get("result", _NOTHING).get("limit"):
                    self.lease.forget_breaches()
                request.finish(message, body)
                self._next()
            return
        params = message["params"]
        if params["id"] != request.id:
            return
        if message["method"] == "credit":
            request.consume(params["bytes"])
        elif message["method"] == "output":
            request.push(Chunk("output", params["stream"], params["offset"], body or b""))
        elif message["method"] == "over":
            # What is left is bookkeeping at the client's own pace.
            self._relax()
        else:
            request.push(Chunk("data", params["channel"], params["offset"], body or b""))

    def _answer_refusal(self, error: Refusal) -> None:
        self._relax()
        request, self._current = self._current, None
        if request is not None:
            request.refuse(error)

    # Deadlines and death.

    def _enforce(self, delay_s: float) -> None:
        self._host.deadlines.set(self._overdue, delay_s)

    def _relax(self) -> None:
        self._host.deadlines.clear(self._overdue)

    def _kill(self) -> None:
        """Kill the slot from outside: its supervisor does not answer."""
        if self.lease is not None:
            self.lease.kill()
        self._lost()

    def _lost(self) -> None:
        if self.state != OPEN:
            return
        self.state = DEAD
        if self._current is not None and self._is_served_by_supervisor(self._current):
            self._answer_refusal(Refusal("slot_dead", f"slot {self.index} has died", **self._cause()))
            self._next()

    def _cause(self) -> dict[str, str]:
        limit = self.lease.breached() if self.lease is not None else None
        return {} if limit is None else {"limit": limit}

    # Opening and closing.

    async def _open(self, request: Request) -> None:
        self.state = OPENING
        place = self._place = Place(self._host, self.index)
        try:
            place.make()
            await place.fill()
        except Refusal as error:
            await self._give_up(request, error)
        except Exception as error:
            await self._give_up(request, Refusal("internal", repr(error)))
        else:
            await self._settle_in(request, place)
        self._next()

    async def _settle_in(self, request: Request, place: Place) -> None:
        self.lease = lease = Lease(self._host, self.index, place)
        try:
            await lease.open(request.params, self._received, self._lost)
        except Refusal as error:
            await self._give_up(request, error)
        except Exception as error:
            await self._give_up(request, Refusal("internal", repr(error)))
        else:
            self.state = OPEN
            self.opened_at = time.monotonic()
            self._current = None
            request.succeed(lease.description)

    async def _give_up(self, request: Request, error: Refusal) -> None:
        await self.close()
        self._answer_refusal(error)

    # Grading.

    def _take_files(self, request: Request) -> None:
        if self._place is None or self.state not in (OPEN, DEAD):
            raise Refusal("unknown_slot", f"slot {self.index} is not open")
        if request.params["limits"].get("workspace") == "tmpfs" or self._is_in_memory():
            raise Refusal("bad_request", "a workspace in memory ends with its namespaces: grading needs workspace disk")
        if "body" in request.params:
            if request.params["body"]["size"] > _GRADING_BYTES:
                raise Refusal("too_large", f"the files for grading: over the limit of {_GRADING_BYTES} bytes")
            request.body = b""
            self._collect(request)
        else:
            self._task = self._loop.create_task(self._grade(request, request.body))

    def _is_in_memory(self) -> bool:
        return self.lease is not None and self.lease.description["limits"]["workspace"] == "tmpfs"

    def _collect(self, request: Request) -> None:
        """Gather the body of `slot.grade`, which is for the daemon itself."""
        ended = False
        while request.incoming:
            data, ended = request.incoming.popleft()
            request.body += data
            request.consume(len(data))
        if len(request.body) > _GRADING_BYTES:
            self._answer_refusal(Refusal("too_large", f"the files for grading: over {_GRADING_BYTES} bytes"))
            self._next()
        elif ended:
            self._task = self._loop.create_task(self._grade(request, request.body))

    async def _grade(self, request: Request, files: bytes) -> None:
        self.state = OPENING
        place, lease = self._place, self.lease
        assert place is not None
        self.lease = None
        try:
            if lease is not None and not await lease.close():
                self.state = UNCLEAN
                raise Refusal("unclean", f"slot {self.index}: what the agent started cannot be ended")
            await place.prepare_grading(files)
        except Refusal as error:
            if self.state != UNCLEAN:
                self.state = DEAD
            self._answer_refusal(error)
        except Exception as error:
            self.state = DEAD
            self._answer_refusal(Refusal("internal", repr(error)))
        else:
            await self._settle_in(request, place)
        self._next()

    # The end.

    async def _reset(self, request: Request) -> None:
        try:
            if not await self.close():
                raise Refusal("unclean", f"slot {self.index} could not be cleaned and is out of use")
        except Refusal as error:
            self._answer_refusal(error)
        except Exception as error:
            self.state = UNCLEAN
            self._answer_refusal(Refusal("unclean", repr(error)))
        else:
            self._current = None
            request.succeed({"clean": True})
        self._next()

    async def close(self) -> bool:
        """Kill everything in the slot and remove what it left; return whether that could be verified."""
        if self.state == UNCLEAN:
            return False
        self.state = RESETTING
        lease, self.lease = self.lease, None
        place, self._place = self._place, None
        ended = True if lease is None else await lease.close()
        clean = True if place is None else await place.remove(release=ended)
        clean = clean and ended
        self.state = CLOSED if clean else UNCLEAN
        return clean

    async def settle(self) -> None:
        """Close the slot, after the opening, reset or closing that may be under way."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        self._task = self._loop.create_task(self._vacate())
        await self._task

    async def _vacate(self) -> None:
        try:
            await self.close()
        except Exception:
            self.state = UNCLEAN
            raise
        if self.state == CLOSED:
            self.owner = None


def _about(method: str, request: Request, **params: object) -> dict[str, Any]:
    return {"method": method, "params": {"id": request.id, **params}}

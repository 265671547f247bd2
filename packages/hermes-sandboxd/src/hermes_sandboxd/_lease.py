"""What one set of namespaces of a slot holds: a supervisor, a control group, and all that the supervisor starts."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from hermes_sandboxd._bubblewrap import slot_arguments, system_arguments
from hermes_sandboxd._cgroups import Breaches, count_breaches, read_events
from hermes_sandboxd._params import complete_limits
from hermes_sandboxd._programs import bubblewrap_command
from hermes_sandboxd._protocol import Refusal
from hermes_sandboxd._supervision import SupervisorLink, ZygoteLink

if TYPE_CHECKING:
    from hermes_sandboxd._cgroups import ControlGroup, ControlGroups
    from hermes_sandboxd._deadlines import Deadlines
    from hermes_sandboxd._place import Place
    from hermes_sandboxd._root import Root
    from hermes_sandboxd._state import StateFolder
    from hermes_sandboxd._users import Users

_OPEN_S = 15.0
_DEATH_S = 5.0
_PAUSE_S = 0.002

Received = Callable[[dict[str, Any], Optional[bytes]], None]


class Host(Protocol):
    """What a lease needs of the daemon."""

    level: str
    seccomp: bool
    environment: dict[str, str]
    state: StateFolder
    root: Root
    users: Users | None
    groups: ControlGroups | None
    zygote: ZygoteLink
    deadlines: Deadlines
    bubblewrap: str | None
    obstacle: str | None

    def log(self, text: str) -> None:
        """Write one line to the daemon's log."""


class Lease:
    """Starts a supervisor in a place, and ends it with everything that it started."""

    def __init__(self, host: Host, slot: int, place: Place) -> None:
        self._host = host
        self._slot = slot
        self._place = place
        self._pid: int | None = None
        self._group: ControlGroup | None = None
        self._events: tuple[int, int] | None = None
        self._known = Breaches(0, 0)
        self._breached: str | None = None
        self.link: SupervisorLink
        self._linked = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.description: dict[str, Any] = {}

    async def open(self, params: dict[str, Any], received: Received, lost: Callable[[], None]) -> None:
        """Make the namespaces; afterwards frames of the supervisor go to `received`.

        Raises:
            Refusal: The isolation level cannot be had here.
        """
        host = self._host
        if host.obstacle is not None:
            raise Refusal("isolation_unavailable", host.obstacle)
        spec = self._spec(params)
        self._make_group(spec["limits"])
        ours, theirs = socket.socketpair()
        self._received, self._lost = received, lost
        self.link = SupervisorLink(ours, self._first, self._gone)
        self._linked = True
        descriptors = [theirs.fileno(), *(self._events or ())]
        if self._place.claim is not None:
            descriptors.append(self._place.claim)
        forked = host.zygote.fork(self._slot, descriptors)
        theirs.close()
        try:
            self._pid = await asyncio.wait_for(forked, _OPEN_S)
            if self._group is not None:
                # Before it starts anything: everything that it starts is born in the group.
                self._group.add(self._pid)
            self.link.send({"method": "open", "params": spec})
            await asyncio.wait_for(self._ready, _OPEN_S)
        except asyncio.TimeoutError:
            raise Refusal("isolation_unavailable", "the slot was not ready in time") from None
        except OSError as error:
            raise Refusal("isolation_unavailable", f"the slot's control group: {error}") from None

    def _spec(self, params: dict[str, Any]) -> dict[str, Any]:
        host, place = self._host, self._place
        limits = complete_limits(params["limits"])
        inside = place.seen_from_inside()
        self.description = {
            "slot": self._slot,
            "isolation": host.level,
            "workspace": inside["workspace"],
            "home": inside["home"],
            "spawn": "zygote",
            "network": params["network"],
            "limits": limits,
            **place.grading_description(),
        }
        spec: dict[str, Any] = {
            "level": host.level,
            "uid": place.uid,
            "network": params["network"],
            "env": {**host.environment, **params["env"]},
            "limits": limits,
            "grouped": host.groups is not None,
            "seccomp": host.seccomp,
            "copies": list(host.root.writable),
            **inside,
        }
        if host.level == "namespaces":
            assert host.bubblewrap is not None
            spec["argv"] = [
                *bubblewrap_command(host.bubblewrap),
                *system_arguments(
                    host.root, host.state.etc, host.state.bound, params["network"], host.state.init(place.uid)
                ),
                *slot_arguments(host.root, place.workspace, place.copies, limits, place.grading_files),
            ]
        elif limits["workspace"] == "tmpfs":
            raise Refusal("bad_request", "workspace tmpfs needs the isolation level namespaces")
        return spec

    def _make_group(self, limits: dict[str, Any]) -> None:
        if self._host.groups is None:
            return
        group = self._host.groups.group(self._slot)
        try:
            group.make(limits["memory_bytes"], limits["processes"])
            self._group = group
            self._events = group.event_files()
        except OSError as error:
            raise Refusal("isolation_unavailable", f"the slot's control group: {error}") from None

    def _first(self, message: dict[str, Any], body: bytes | None) -> None:
        if message.get("method") == "breach":
            self._breached = message["params"]["limit"]
        elif self._ready.done():
            self._received(message, body)
        elif message["method"] == "ready":
            self._ready.set_result(None)
        else:
            self._ready.set_exception(Refusal("isolation_unavailable", message["params"]["message"]))

    def _gone(self) -> None:
        if not self._ready.done():
            self._ready.set_exception(Refusal("slot_dead", "the supervisor ended before it was ready"))
            self._ready.exception()
        else:
            self._lost()

    def breached(self) -> str | None:
        """Return the limit that the slot has breached, if one is known: why it died, perhaps."""
        if self._events is not None:
            counted = count_breaches(read_events(*self._events))
            if counted.memory > self._known.memory:
                return "memory"
            if counted.processes > self._known.processes:
                return "processes"
        return self._breached

    def forget_breaches(self) -> None:
        """Take the breaches so far as told: they are not why the slot may die later."""
        self._breached = None
        if self._events is not None:
            self._known = count_breaches(read_events(*self._events))

    def memory_files(self) -> tuple[int, ...]:
        """Return the descriptors that tell how much memory this slot costs."""
        return self.link.descriptors[1:] if self._linked else ()

    def kill(self) -> None:
        """Kill everything in the slot, and its supervisor, now."""
        if self._linked:
            self.link.kill_init()
        if self._pid is not None:
            self._host.zygote.kill(self._pid)

    async def close(self) -> bool:
        """Kill everything; return whether all of it is verifiably gone."""
        clean = True
        if self._linked:
            clean = await self._end_processes()
            self.link.close()
            for descriptor in self.link.descriptors:
                os.close(descriptor)
            self._linked = False
        if self._events is not None:
            for file in self._events:
                os.close(file)
            self._events = None
        if self._group is not None:
            clean = await self._remove_group(self._group) and clean
        return clean

    async def _end_processes(self) -> bool:
        self.kill()
        self.link.close()
        try:
            if self.link.descriptors:
                await _wait_for_end(self.link.descriptors[0])
            if self._pid is not None:
                await asyncio.wait_for(self._host.zygote.ended(self._pid), _DEATH_S)
                self._host.zygote.forget(self._pid)
            if self._host.level != "namespaces":
                await asyncio.wait_for(self._host.zygote.sweep(self._place.uid), _DEATH_S)
        except asyncio.TimeoutError:
            self._host.log(f"slot {self._slot}: processes cannot be killed")
            return False
        return True

    async def _remove_group(self, group: ControlGroup) -> bool:
        # The kernel may not be quite done with the processes that have just ended.
        deadline = asyncio.get_running_loop().time() + _DEATH_S
        while True:
            try:
                group.remove()
                return True
            except OSError as error:
                if asyncio.get_running_loop().time() > deadline:
                    self._host.log(f"slot {self._slot}: its control group cannot be removed: {error}")
                    return False
            await asyncio.sleep(_PAUSE_S)


async def _wait_for_end(pidfd: int) -> None:
    """Wait until PID 1 has ended: the kernel ends it only after everything else in its namespace."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ended() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_reader(pidfd, ended)
    try:
        await asyncio.wait_for(future, _DEATH_S)
    finally:
        loop.remove_reader(pidfd)

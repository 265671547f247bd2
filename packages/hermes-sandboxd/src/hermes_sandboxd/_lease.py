"""What one opening of a slot holds: a user, a workspace, a supervisor and its namespaces."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from hermes_sandboxd._bubblewrap import HOME, WORKSPACE, slot_arguments, system_arguments
from hermes_sandboxd._params import complete_limits
from hermes_sandboxd._protocol import Refusal
from hermes_sandboxd._removal import remove_tree
from hermes_sandboxd._supervision import SupervisorLink, ZygoteLink

if TYPE_CHECKING:
    from hermes_sandboxd._deadlines import Deadlines
    from hermes_sandboxd._state import StateFolder
    from hermes_sandboxd._users import Claim, Users

_OPEN_S = 15.0
_DEATH_S = 5.0

Received = Callable[[dict[str, Any], Optional[bytes]], None]


class Host(Protocol):
    """What a lease needs of the daemon."""

    state: StateFolder
    users: Users | None
    zygote: ZygoteLink
    deadlines: Deadlines
    bubblewrap: str | None
    obstacle: str | None

    def log(self, text: str) -> None:
        """Write one line to the daemon's log."""


class Lease:
    """Opens a slot and closes it again, completely."""

    def __init__(self, host: Host, slot: int) -> None:
        self._host = host
        self._slot = slot
        self._claim: Claim | None = None
        self._workspace: str | None = None
        self._pid: int | None = None
        self.link: SupervisorLink
        self._linked = False
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.description: dict[str, Any] = {
            "slot": slot,
            "isolation": "namespaces",
            "workspace": WORKSPACE,
            "home": HOME,
            "spawn": "zygote",
        }

    async def open(self, params: dict[str, Any], received: Received, lost: Callable[[], None]) -> None:
        """Make the namespaces; afterwards frames of the supervisor go to `received`.

        Raises:
            Refusal: Namespaces cannot be made here.
        """
        host = self._host
        if host.obstacle is not None or host.bubblewrap is None:
            raise Refusal("isolation_unavailable", host.obstacle or "bubblewrap is missing")
        if host.users is not None:
            self._claim = host.users.claim()
            if self._claim is None:
                raise Refusal("isolation_unavailable", "no user is left in the range of --uid-range")
        uid = None if self._claim is None else self._claim.uid
        self._workspace = host.state.workspace(self._slot, uid)
        ours, theirs = socket.socketpair()
        self._received, self._lost = received, lost
        self.link = SupervisorLink(ours, self._first, self._gone)
        self._linked = True
        descriptors = [theirs.fileno()] + ([] if self._claim is None else [self._claim.descriptor])
        forked = host.zygote.fork(self._slot, descriptors)
        theirs.close()
        limits = complete_limits(params["limits"])
        argv = [
            host.bubblewrap,
            *system_arguments(host.state.etc, host.state.bound, params["network"], host.state.init(uid)),
            *slot_arguments(self._workspace, limits["tmp_bytes"], limits["home_bytes"]),
        ]
        spec = {"argv": argv, "uid": uid, "env": params["env"], "workspace": WORKSPACE, "home": HOME}
        self.link.send({"method": "open", "params": spec})
        try:
            self._pid = await asyncio.wait_for(forked, _OPEN_S)
            await asyncio.wait_for(self._ready, _OPEN_S)
        except asyncio.TimeoutError:
            raise Refusal("isolation_unavailable", "the namespaces were not ready in time") from None

    def _first(self, message: dict[str, Any], body: bytes | None) -> None:
        if self._ready.done():
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
        """Kill everything, remove everything; return whether all of it is verifiably gone."""
        clean = True
        if self._linked:
            clean = await self._end_processes()
            self.link.close()
            for descriptor in self.link.descriptors:
                os.close(descriptor)
        if self._workspace is not None:
            clean = await self._remove_workspace(self._workspace) and clean
        if self._claim is not None and clean:
            # A user whose processes or files may still be about is not given to anybody else.
            os.close(self._claim.descriptor)
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
        except asyncio.TimeoutError:
            self._host.log(f"slot {self._slot}: processes cannot be killed")
            return False
        return True

    async def _remove_workspace(self, path: str) -> bool:
        try:
            try:
                os.rmdir(path)
            except OSError:
                await asyncio.get_running_loop().run_in_executor(None, remove_tree, path)
        except OSError as error:
            self._host.log(f"slot {self._slot}: {path} cannot be removed: {error}")
            return False
        return True


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

"""The process outside a slot that starts and ends everything inside it."""

from __future__ import annotations

import array
import gc
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Callable, Protocol

from hermes_sandboxd._archiving import Archiving
from hermes_sandboxd._bare import settle
from hermes_sandboxd._command import Command
from hermes_sandboxd._extraction import Extraction
from hermes_sandboxd._files import Reading, Writing
from hermes_sandboxd._frames import FrameDecoder, encode_frame
from hermes_sandboxd._job_operations import JobInput, JobKill, JobList, JobPoll, JobResize, JobStart
from hermes_sandboxd._killing import BareProcesses, SlotProcesses
from hermes_sandboxd._limits import Observed, set_resource_limits
from hermes_sandboxd._link import Link
from hermes_sandboxd._listing import Listing
from hermes_sandboxd._namespaces import Joined, NamespaceError, join
from hermes_sandboxd._protocol import Refusal, notification, refusal
from hermes_sandboxd._reactor import READ, Reactor
from hermes_sandboxd._spawning import OtherUserSpawner, SameUserSpawner
from hermes_sandboxd._surroundings import Surroundings
from hermes_sandboxd._watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Sequence


class Operation(Protocol):
    """What serves one request: made, then started; calls `done` after it has answered.

    Made as `operation(around, request_id, params, body, done)`, where `body` is what came inside the request's frame.
    """

    def start(self) -> None:
        """Begin; a `Refusal` raised here is the answer."""

    def data(self, body: bytes, end: bool) -> None:
        """Take a chunk of the request's body."""

    def credit(self, count: int) -> None:
        """Take credit for outgoing bodies."""

    def resume(self) -> None:
        """Go on sending: the link made room."""

    def cancel(self) -> None:
        """End soon; it still answers."""


_OPERATIONS: dict[str, Callable[[Surroundings, int, dict[str, Any], bytes, Callable[[], None]], Operation]] = {
    "slot.exec": Command,
    "slot.start": JobStart,
    "slot.poll": JobPoll,
    "slot.input": JobInput,
    "slot.resize": JobResize,
    "slot.kill": JobKill,
    "slot.jobs": JobList,
    "slot.read": Reading,
    "slot.write": Writing,
    "slot.list": Listing,
    "slot.archive": Archiving,
    "slot.extract": Extraction,
}


def run(sock: socket.socket, descriptors: Sequence[int]) -> None:
    """Serve one slot until the daemon hangs up, the slot dies, or its namespaces cannot be made.

    Args:
        sock: Leads to the daemon.
        descriptors: The event files of the slot's control group come first, if it has one.
    """
    # Its own garbage is collected, the zygote's memory is left alone: a write would copy the page.
    gc.freeze()
    spec = _read_spec(sock)
    if spec is None:
        return
    try:
        joined = join(spec) if spec["level"] == "namespaces" else settle(spec)
    except NamespaceError as error:
        sock.sendall(encode_frame(notification("failed", message=str(error))))
        return
    _announce(sock, joined)
    if joined.monitor:
        os.waitpid(joined.monitor, 0)
    own_user = spec["uid"] is not None
    set_resource_limits(spec["limits"], spec["level"], own_user=own_user, grouped=spec["grouped"])
    events = (descriptors[0], descriptors[1]) if spec["grouped"] else None
    supervisor = Supervisor(sock, spec, joined, _processes(spec, joined), events)
    try:
        supervisor.serve()
    finally:
        supervisor.end()
        signal.pidfd_send_signal(joined.init_pidfd, signal.SIGKILL)


def _processes(spec: dict[str, Any], joined: Joined) -> SlotProcesses:
    if spec["level"] == "namespaces":
        return SlotProcesses(own=joined.children)
    return BareProcesses(spec["uid"], joined.children)


def _read_spec(sock: socket.socket) -> dict[str, Any] | None:
    decoder = FrameDecoder()
    while True:
        data = sock.recv(65536)
        if not data:
            return None
        for message, _ in decoder.feed(data):
            params = message["params"]
            assert isinstance(params, dict)
            return params


def _announce(sock: socket.socket, joined: Joined) -> None:
    # The daemon kills PID 1 through this descriptor when the supervisor does not, and reads the memory that the slot
    # costs, which nobody else may.
    descriptors = [joined.init_pidfd, *joined.memory]
    message = encode_frame(notification("ready", pid=joined.init_pid))
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    sock.sendmsg([message], [rights])
    for descriptor in joined.memory:
        os.close(descriptor)


class Supervisor:
    """Serves the requests of one slot, one at a time."""

    def __init__(
        self,
        sock: socket.socket,
        spec: dict[str, Any],
        joined: Joined,
        processes: SlotProcesses,
        events: tuple[int, int] | None,
    ) -> None:
        self._reactor = Reactor()
        self._link = Link(sock, self._reactor, self._handle)
        self._link.on_relief = self._relieved
        observed = Observed(events, spec["limits"])
        spawner = OtherUserSpawner(spec["uid"]) if spec["level"] == "user" else SameUserSpawner(joined.oom_score)
        self._around = Surroundings(self._reactor, self._link, spec, spawner, processes, observed)
        self._around.end_commands = self._end_commands
        self._watchdog = Watchdog(self._around, spec)
        self._operation: Operation | None = None
        self._id: int | None = None
        self._reactor.add(joined.init_pidfd, READ, self._died)
        if spec["level"] != "namespaces":
            self._around.adopt_orphans(joined.children)

    def serve(self) -> None:
        """Run until the link is closed."""
        while not self._link.closed:
            self.turn()

    def end(self) -> None:
        """End what is left in the slot."""
        self._around.processes.end()

    def turn(self) -> None:
        """Wait for the next event and handle what is ready."""
        self._reactor.run_once()

    def close(self) -> None:
        """Close what is open, besides what was given."""
        self._around.close()

    def _died(self, _: int) -> None:
        self._link.closed = True

    def _end_commands(self) -> None:
        if isinstance(self._operation, Command):
            self._operation.end("limit")
        for pid in self._around.processes.read():
            self._around.processes.kill_one(pid)

    def _relieved(self) -> None:
        if self._operation is not None:
            self._operation.resume()

    def _handle(self, message: dict[str, Any], body: bytes | None) -> None:
        method = message["method"]
        params = message["params"]
        if "id" in message:
            self._start(message["id"], method, params, body or b"")
            return
        operation = self._operation
        if operation is None or params["id"] != self._id:
            # The request was answered while this was on its way.
            return
        if method == "data":
            operation.data(body or b"", bool(params.get("end")))
        elif method == "credit":
            operation.credit(params["bytes"])
        elif method == "cancel":
            operation.cancel()

    def _start(self, request_id: int, method: str, params: dict[str, Any], body: bytes) -> None:
        self._id = request_id
        self._watchdog.wake()
        try:
            made = _OPERATIONS.get(method)
            if made is None:
                raise Refusal("bad_method", f"{method} is not served here")
            self._operation = made(self._around, request_id, params, body, self._done)
            self._operation.start()
        except Refusal as error:
            self._link.send(refusal(request_id, error))
            self._done()

    def _done(self) -> None:
        self._watchdog.rest()
        self._operation = None
        self._id = None

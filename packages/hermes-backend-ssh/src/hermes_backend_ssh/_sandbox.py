"""One daemon on the machine."""

from __future__ import annotations

import logging
import socket
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import anyio

from hermes_backend_ssh import _scripts
from hermes_backend_ssh._errors import SSH_FAILED, connection_error, place_error
from hermes_backend_ssh._processes import end_process
from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import REFUSED_STATUS, ProcessSandbox, SocketStream, require_slots
from hermes_sandboxd import daemon_arguments, sandbox_title, socket_beside

if TYPE_CHECKING:
    from anyio.abc import ByteStream, Process, TaskGroup

    from hermes_backend_ssh._connection import Connection
    from hermes_backend_ssh._upkeep import Upkeep
    from hermes_core.sandbox import IsolationSetting

__all__ = ["SILENCE_S", "SshSandbox"]

SILENCE_S = 120.0
"""A daemon that hears nothing for so long ends: when the network is gone, no end arrives either."""
REFUSED = (REFUSED_STATUS, 126, 127)
"""Exit statuses of a daemon, or of a shell, that cannot work with what it was given: trying again is of no use."""
STOP_S = 10.0

_logger = logging.getLogger(__name__)


class SshSandbox(ProcessSandbox):
    """An ssh session with a daemon at its other end, which lives by the session's standard input.

    That ends when this process does, or ssh, or the connection; and the daemon ends with it, and all its slots.

    Args:
        name: Unique among the owner's sandboxes.
        owner: Whose it is.
        capacity: How many slots it hosts.
        connection: To the machine.
        upkeep: Looks after what is left there.
        root: The folder there for everything.
        digest: Name of the runtime folder.
        tasks: Where processes are waited for.
    """

    def __init__(
        self,
        name: str,
        owner: str,
        capacity: int,
        connection: Connection,
        upkeep: Upkeep,
        root: str,
        digest: str,
        tasks: TaskGroup,
    ) -> None:
        super().__init__(name, capacity)
        self._title = sandbox_title(owner, name)
        self._connection = connection
        self._upkeep = upkeep
        self._root, self._digest = root, digest
        self._tasks = tasks
        self._pid: int | None = None
        self._relays: set[Process] = set()

    @property
    def pid(self) -> int | None:
        """The daemon's process id there."""
        return self._pid

    async def launch(self, isolation: IsolationSetting) -> None:
        """Start the daemon."""
        arguments = daemon_arguments(
            socket=socket_beside(self._title),
            state=self._title,
            capacity=self._capacity,
            lifeline_fd=0,
            lifeline_silence_s=SILENCE_S,
            isolation=isolation,
            command=_scripts.daemon(self._root, self._digest),
        )
        script = _scripts.among_sandboxes(self._root, arguments)
        with self._lifeline.open() as reading:
            self._process = await self._connection.open(script, stdin=reading, stdout=PIPE, stderr=PIPE)
        self._tasks.start_soon(self.drain)

    async def wait_ready(self) -> str:
        """Wait until the daemon takes connections; return the isolation level of its slots.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: It can open no slot there.
        """
        ready = await self._ready()
        self._pid = ready.pid
        require_slots(ready.obstacle, f"on {self._connection.address}", hint_prefix="there: ")
        return ready.isolation

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        if (why := await self.alive()) is not None:
            raise SandboxLostError(why)
        command = (*_scripts.daemon(self._root, self._digest), "relay", "--socket", socket_beside(self._title))
        script = _scripts.among_sandboxes(self._root, command)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                relay = await self._connection.open(
                    script, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=DEVNULL
                )
            ours.setblocking(False)
        except BaseException:
            ours.close()
            raise
        self._relays.add(relay)
        self._tasks.start_soon(self._wait_for, relay)
        return SocketStream(ours)

    async def _wait_for(self, relay: Process) -> None:
        try:
            await relay.wait()
        finally:
            self._relays.discard(relay)
            await end_process(relay)

    def beat(self) -> None:
        """Let the daemon know that somebody is here."""
        self._lifeline.beat()

    async def _end(self, process: Process) -> None:
        with anyio.move_on_after(STOP_S):
            await process.wait()
        for relay in list(self._relays):
            relay.terminate()
        if process.returncode != 0:
            try:
                with anyio.fail_after(STOP_S):
                    left = await self._upkeep.settle(self._title, self._pid if process.returncode is None else None)
                said = f"{left[0].state}" if left else ""
            except TimeoutError:
                said = f"{self._connection.address} does not answer"
            except HermesError as error:
                said = error.message
            if said:
                _logger.warning("sandbox %s may be left for a while: %s", self._name, said)
        if process.returncode is None:
            process.kill()

    def _why_not_started(self) -> HermesError:
        address = self._connection.address
        status = self._process.returncode if self._process is not None else None
        if status in REFUSED:
            said = [line.removeprefix("hermes-sandboxd: ") for line in self._said.lines]
            return place_error(said, address, f"sandbox {self._name} cannot be started")
        if status == SSH_FAILED and self._said.lines:
            return connection_error(self._said.lines, address)
        return SandboxLostError(self._why_dead())

    def _why_dead(self) -> str:
        if self._process is None or (status := self._process.returncode) is None:
            return f"sandbox {self._name} was stopped"
        said = self._said.after_colon
        if status == SSH_FAILED and self._connection.alive:
            return f"the daemon of sandbox {self._name} was killed{said}"
        if status == SSH_FAILED or status < 0:
            return f"the connection of sandbox {self._name} to {self._connection.address} is gone{said}"
        return f"the daemon of sandbox {self._name} ended with status {status}{said}"

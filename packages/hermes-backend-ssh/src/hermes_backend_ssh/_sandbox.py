"""One daemon on the machine."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections import deque
from contextlib import suppress
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import anyio
from anyio.streams.text import TextReceiveStream

from hermes_backend_ssh import _scripts
from hermes_backend_ssh._errors import SSH_FAILED, connection_error, place_error
from hermes_backend_ssh._processes import end_process
from hermes_core.exceptions import BackendUnavailableError, HermesError, SandboxLostError
from hermes_core.sandbox import UnixStream
from hermes_sandboxd import daemon_arguments

if TYPE_CHECKING:
    from anyio.abc import ByteStream, Process, TaskGroup

    from hermes_backend_ssh._connection import Connection
    from hermes_backend_ssh._upkeep import Upkeep
    from hermes_core.sandbox import IsolationSetting

__all__ = ["SILENCE_S", "SshSandbox"]

SILENCE_S = 120.0
"""A daemon that hears nothing for so long ends: when the network is gone, no end arrives either."""
REFUSED = (2, 126, 127)
"""Exit statuses of a daemon, or of a shell, that cannot work with what it was given: trying again is of no use."""
STOP_S = 10.0
STDERR_LINES = 20
STDERR_LINE = 500
LONGEST_READY = 1 << 16

_logger = logging.getLogger(__name__)


class SshSandbox:
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
        self._name = name
        self._title = f"{owner}~{name}"
        self._capacity = capacity
        self._connection = connection
        self._upkeep = upkeep
        self._root, self._digest = root, digest
        self._tasks = tasks
        self._process: Process | None = None
        self._lifeline = -1
        self._pid: int | None = None
        self._relays: set[Process] = set()
        self._said: deque[str] = deque(maxlen=STDERR_LINES)
        self._drained = anyio.Event()
        self._stopping = anyio.Lock()
        self._stopped = False

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""
        return self._name

    @property
    def capacity(self) -> int:
        """How many slots it hosts."""
        return self._capacity

    @property
    def token(self) -> None:
        """None: the socket is closed to others."""
        return

    @property
    def pid(self) -> int | None:
        """The daemon's process id there."""
        return self._pid

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""
        return self._stopped

    async def launch(self, isolation: IsolationSetting) -> None:
        """Start the daemon."""
        arguments = daemon_arguments(
            socket=f"{self._title}.sock",
            state=self._title,
            capacity=self._capacity,
            lifeline_fd=0,
            lifeline_silence_s=SILENCE_S,
            isolation=isolation,
            command=_scripts.daemon(self._root, self._digest),
        )
        reading, self._lifeline = os.pipe()
        os.set_blocking(self._lifeline, False)
        try:
            script = _scripts.among_sandboxes(self._root, arguments)
            self._process = await self._connection.open(script, stdin=reading, stdout=PIPE, stderr=PIPE)
        finally:
            os.close(reading)
        self._tasks.start_soon(self._drain, self._process)

    async def _drain(self, process: Process) -> None:
        """Keep the last lines of standard error, the daemon's and ssh's, until both have ended."""
        assert process.stderr is not None
        rest = ""
        try:
            async for text in TextReceiveStream(process.stderr, errors="replace"):
                *lines, rest = (rest + text)[-STDERR_LINE * STDERR_LINES :].split("\n")
                for line in filter(str.strip, lines):
                    _logger.debug("sandbox %s: %s", self._name, line)
                    self._said.append(line.strip()[:STDERR_LINE])
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        finally:
            if rest.strip():
                self._said.append(rest.strip()[:STDERR_LINE])
            self._drained.set()

    async def wait_ready(self) -> str:
        """Wait until the daemon takes connections; return the isolation level of its slots.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: It can open no slot there.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        line = b""
        try:
            while not line.endswith(b"\n") and len(line) < LONGEST_READY:
                line += await self._process.stdout.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            with anyio.move_on_after(1):
                await self._process.wait()
                await self._drained.wait()
            raise self._why_not_started() from None
        announced = json.loads(line)
        self._pid = announced["pid"]
        if announced["obstacle"] is not None:
            reason, _, hint = announced["obstacle"].partition("; ")
            raise BackendUnavailableError(
                f"isolated slots cannot be had on {self._connection.address}: {reason}",
                hint=f"there: {hint}" if hint else None,
            )
        return str(announced["isolation"])

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        if (why := await self.alive()) is not None:
            raise SandboxLostError(why)
        command = (*_scripts.daemon(self._root, self._digest), "relay", "--socket", f"{self._title}.sock")
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
        return UnixStream(ours)

    async def _wait_for(self, relay: Process) -> None:
        try:
            await relay.wait()
        finally:
            self._relays.discard(relay)
            await end_process(relay)

    def beat(self) -> None:
        """Let the daemon know that somebody is here."""
        if self._lifeline >= 0:
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._lifeline, b"\n")

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        if self._process is None or self._process.returncode is not None:
            return self._why_dead()
        return None

    def cut(self) -> None:
        """Let go of the lifeline: the daemon ends its slots and itself."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    async def stop(self) -> None:
        """End the daemon and all its slots, by force if it takes too long; idempotent."""
        self.cut()
        with anyio.CancelScope(shield=True):
            async with self._stopping:
                if self._process is not None:
                    await self._end(self._process)
                    self._process = None
                self._stopped = True

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
        with anyio.move_on_after(1):
            await self._drained.wait()
        await end_process(process)

    def _why_not_started(self) -> HermesError:
        address = self._connection.address
        status = self._process.returncode if self._process is not None else None
        if status in REFUSED:
            said = [line.removeprefix("hermes-sandboxd: ") for line in self._said]
            return place_error(said, address, f"sandbox {self._name} cannot be started")
        if status == SSH_FAILED and self._said:
            return connection_error(self._said, address)
        return SandboxLostError(self._why_dead())

    def _why_dead(self) -> str:
        if self._process is None or (status := self._process.returncode) is None:
            return f"sandbox {self._name} was stopped"
        said = f": {self._said[-1]}" if self._said else ""
        if status == SSH_FAILED and self._connection.alive:
            return f"the daemon of sandbox {self._name} was killed{said}"
        if status == SSH_FAILED or status < 0:
            return f"the connection of sandbox {self._name} to {self._connection.address} is gone{said}"
        return f"the daemon of sandbox {self._name} ended with status {status}{said}"

"""The backend `ssh`."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar, Self

import anyio
from anyio import CapacityLimiter, to_thread

from hermes_backend_ssh._address import Address
from hermes_backend_ssh._config import SshConfig
from hermes_backend_ssh._connection import Connection
from hermes_backend_ssh._diagnosis import diagnose
from hermes_backend_ssh._runtime import check_machine, install
from hermes_backend_ssh._sandbox import SshSandbox
from hermes_backend_ssh._scripts import among_sandboxes, daemon
from hermes_backend_ssh._upkeep import Upkeep
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import BackendUnavailableError, SandboxLostError
from hermes_core.sandbox import ISOLATION_LEVELS, Capabilities, StartedSandboxes, check_isolation, portable_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_core.diagnosis import Finding
    from hermes_core.sandbox import Sandbox, SandboxInfo, SandboxSpec

__all__ = ["SshBackend"]

START_S = 60.0
BEAT_S = 5.0

_logger = logging.getLogger(__name__)


class SshBackend:
    """Starts `hermes-sandboxd` on a machine that is reached by ssh.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = SshConfig
    name: ClassVar[str] = "ssh"

    def __init__(self, config: SshConfig | None = None) -> None:
        self._config = config or SshConfig()
        self._connection: Connection | None = None
        self._sandboxes = StartedSandboxes[SshSandbox]("daemon", START_S)
        self._warned = False

    @property
    def config(self) -> SshConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Every isolation level, with or without that machine's network; nothing that needs an image."""
        return Capabilities(isolation=ISOLATION_LEVELS)

    @staticmethod
    def diagnose() -> Iterator[Finding]:
        """Say for `hermes doctor` whether there is a client, and whether the machine that is named lets us in."""
        return diagnose()

    @property
    def connection(self) -> Connection | None:
        """The connection that everything shares; None before the backend is entered and after it is left."""
        return self._connection

    @property
    def sandboxes(self) -> tuple[SshSandbox, ...]:
        """The daemons that were started and not stopped."""
        return tuple(self._sandboxes)

    async def __aenter__(self) -> Self:
        """Connect, put the runtime folder there, and remove what killed processes left there.

        Raises:
            ConfigError: No machine was named.
            BackendUnavailableError: It cannot work there; the hint says what to change.
        """
        address = Address.of(self._config)
        self._runtime: Path = (await to_thread.run_sync(portable_runtime, limiter=CapacityLimiter(1))).files[0]
        self._reconnecting = anyio.Lock()
        self._connection = Connection(address, self._config.remote_dir)
        self._upkeep = Upkeep(address, self._config.remote_dir, self._connection.control)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._disconnect)
            with _here_and_now():
                await self._connected(self._connection)
                await self._upkeep.clean(None)
            self._tasks = await stack.enter_async_context(background_tasks())
            self._tasks.start_soon(self._beat)
            stack.push_async_callback(self._sandboxes.stop_all)
            self._life = stack.pop_all()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every daemon that was started and not stopped, and disconnect."""
        await self._life.aclose()

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one daemon; cancelling leaves nothing behind."""
        if self._connection is None:
            raise BackendUnavailableError("the backend 'ssh' was not entered")
        root = await self._connected(self._connection)
        sandbox = SshSandbox(
            name, owner, spec.slots, self._connection, self._upkeep, root, self._runtime.name, self._tasks
        )
        async with self._sandboxes.starting(sandbox):
            await sandbox.launch(self._config.isolation)
            await self._look_at(await sandbox.wait_ready(), self._connection)
        return sandbox

    async def _look_at(self, level: str, connection: Connection) -> None:
        """See that slots are isolated well enough, and say it if they are less than they could be."""
        check_isolation(level, self._config.require_isolation, self.name)
        if level == "none" and self._config.isolation != "none":
            # A daemon with one slot would do it, as in a container; here agents would be the user of a whole machine.
            raise await self._no_isolation(connection)
        if level != ISOLATION_LEVELS[0] and not self._warned:
            self._warned = True
            if level == "none":
                _logger.warning(
                    "slots have no isolation: agents can do on %s whatever its user can", connection.address
                )
            elif self._config.isolation == "auto":
                _logger.warning("slots on %s have the isolation level %r only", connection.address, level)

    async def _no_isolation(self, connection: Connection) -> BackendUnavailableError:
        command = (*daemon(self._root, self._runtime.name), "check")
        done = await connection.run(among_sandboxes(self._root, command))
        report = json.loads(done.output or "{}")
        return BackendUnavailableError(
            f"isolated slots cannot be had on {connection.address}: {report.get('reason')}",
            hint=f"there: {report.get('hint')}; or, if agents may do whatever the user may: -B isolation=none",
        )

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what every run of this user has there, by the state folders."""
        with _here_and_now():
            return await self._find_upkeep().list(owner)

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Remove the state folders and sockets there that no daemon has, and return whose they were."""
        with _here_and_now():
            return await self._find_upkeep().clean(owner)

    def _find_upkeep(self) -> Upkeep:
        if self._connection is not None:
            return self._upkeep
        return Upkeep(Address.of(self._config), self._config.remote_dir)

    async def _connected(self, connection: Connection) -> str:
        """See that there is a connection, and the runtime folder at its end; return the folder there for everything."""
        async with self._reconnecting:
            if not connection.alive:
                await connection.aclose()
                machine = await connection.connect()
                try:
                    check_machine(machine, connection)
                    await install(connection, machine.root, self._runtime)
                except BaseException:
                    await connection.aclose()
                    raise
                self._root = machine.root
            return self._root

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _beat(self) -> None:
        while True:
            for sandbox in self._sandboxes:
                sandbox.beat()
            await anyio.sleep(BEAT_S)


@contextmanager
def _here_and_now() -> Iterator[None]:
    """Where nobody tries again, what is out of reach for now is so altogether."""
    try:
        yield
    except SandboxLostError as error:
        raise BackendUnavailableError(error.message, hint=error.hint) from error

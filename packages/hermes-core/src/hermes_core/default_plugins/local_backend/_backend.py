"""The embedded default: daemons that are children of this process."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, ClassVar, Self

from anyio import to_thread

from hermes_core.concurrency import background_tasks
from hermes_core.default_plugins.local_backend._config import LocalConfig
from hermes_core.default_plugins.local_backend._sandbox import LocalSandbox
from hermes_core.default_plugins.local_backend._state import (
    clean_up,
    existing_root,
    folder_of,
    inspect,
    state_root,
    sweep,
)
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import ISOLATION_LEVELS, Capabilities, StartedSandboxes, check_isolation, require_slots
from hermes_sandboxd import check_namespaces, choose_isolation, find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from pydantic import BaseModel

    from hermes_core.sandbox import IsolationSetting, Sandbox, SandboxInfo, SandboxSpec
    from hermes_sandboxd import Isolation

__all__ = ["LocalBackend"]

START_S = 20.0

_logger = logging.getLogger(__name__)


class LocalBackend:
    """Starts `hermes-sandboxd` on this machine.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = LocalConfig
    name: ClassVar[str] = "local"

    def __init__(self, config: LocalConfig | None = None) -> None:
        self._config = config or LocalConfig()
        self._root: Path | None = None
        self._bubblewrap: str | None = None
        self._sandboxes = StartedSandboxes[LocalSandbox]("daemon", START_S)

    @property
    def config(self) -> LocalConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Every isolation level, with or without the host's network; nothing that needs an image."""
        return Capabilities(isolation=ISOLATION_LEVELS)

    @property
    def sandboxes(self) -> tuple[LocalSandbox, ...]:
        """The daemons that were started and not stopped."""
        return tuple(self._sandboxes)

    async def __aenter__(self) -> Self:
        """See that slots of the wanted isolation level can be had here.

        Raises:
            BackendUnavailableError: They cannot; the hint says what to change.
        """
        configured = str(self._config.bubblewrap) if self._config.bubblewrap is not None else None
        self._bubblewrap = find_bubblewrap(configured) or configured
        isolation = await to_thread.run_sync(self._choose_isolation)
        require_slots(isolation.obstacle, "here")
        check_isolation(isolation.level, self._config.require_isolation, self.name)
        if self._config.isolation == "auto" and isolation.level != ISOLATION_LEVELS[0]:
            _logger.warning(
                "slots have the isolation level %r only, since namespaces cannot be had here", isolation.level
            )
        self._root = state_root(self._config.state_dir)
        await to_thread.run_sync(sweep, self._root)
        self._life = AsyncExitStack()
        self._tasks = await self._life.enter_async_context(background_tasks())
        self._life.push_async_callback(self._sandboxes.stop_all)
        return self

    def _choose_isolation(self) -> Isolation:
        wanted: IsolationSetting = self._config.isolation
        if wanted == "auto" and self._config.bubblewrap is not None:
            wanted = "namespaces"  # whoever names a bubblewrap wants it to be used
        return choose_isolation(wanted, self._config.slots_per_sandbox, lambda: check_namespaces(self._bubblewrap))

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every daemon that was started and not stopped."""
        await self._life.aclose()

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one daemon; cancelling leaves nothing behind."""
        if self._root is None:
            raise BackendUnavailableError("the local backend was not entered")
        folder = folder_of(self._root, owner, name)
        sandbox = LocalSandbox(name, spec.slots, folder)
        async with self._sandboxes.starting(sandbox):
            await sandbox.spawn(self._bubblewrap, self._config.isolation)
            self._tasks.start_soon(sandbox.drain)
            await sandbox.wait_ready()
        return sandbox

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what every run of this user has, by the state folders."""
        root = existing_root(self._config.state_dir)
        return inspect(root, owner) if root is not None else ()

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Remove the state folders and sockets of which no process is left, and return whose they were."""
        root = existing_root(self._config.state_dir)
        return await to_thread.run_sync(clean_up, root, owner) if root is not None else ()

"""The life of one sandbox of a pool, from its start to its stop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import SandboxClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from hermes_core.sandbox import Sandbox, SandboxBackend, SandboxSpec

__all__ = ["SandboxKeeper"]

STOP_S = 15.0
HEALTH_S = 10.0

_logger = logging.getLogger(__name__)


class SandboxKeeper:
    """Keeps one sandbox: starts it, watches over it, and stops it whatever happens.

    Args:
        backend: Starts it.
        owner: For whom.
        tasks: Where the tasks of its client live.
        health_interval_s: Seconds between two looks at it.
    """

    def __init__(self, backend: SandboxBackend, owner: str, tasks: TaskGroup, health_interval_s: float) -> None:
        self._backend = backend
        self._owner = owner
        self._tasks = tasks
        self._health_interval_s = health_interval_s

    async def keep(
        self, spec: SandboxSpec, name: str, ready: Callable[[SandboxClient], None], over: Callable[[], None]
    ) -> None:
        """Return when the sandbox was lost, or its client closed.

        Args:
            spec: What to start.
            name: Its name.
            ready: Called once it takes requests.
            over: Called when it takes no more, before it is stopped.

        Raises:
            Exception: It did not start.
        """
        sandbox = await self._backend.start(spec, self._owner, name)
        try:
            client = SandboxClient(sandbox)
            await self._tasks.start(client.run)
            ready(client)
            await self._watch(client, name)
        finally:
            over()
            await _stop(sandbox)

    async def _watch(self, client: SandboxClient, name: str) -> None:
        silent = 0
        while client.lost is None:
            with anyio.move_on_after(self._health_interval_s):
                await client.wait_ended()
                break
            silent = 0 if await _answers(client) else silent + 1
            if silent == 1:
                client.reconnect()  # perhaps it is only the connection
            elif silent > 1:
                client.close("the sandbox daemon does not answer")
                _logger.warning("sandbox %s does not answer, and is replaced", name)
        if not client.closed:
            _logger.warning("sandbox %s is lost: %s", name, client.lost)


async def _answers(client: SandboxClient) -> bool:
    with anyio.move_on_after(HEALTH_S):
        try:
            await client.request("health", {})
        except SandboxLostError:
            return True  # told by `lost`
        except HermesError as error:
            _logger.warning("health of a sandbox: %s", error)
        return True
    return False


async def _stop(sandbox: Sandbox) -> None:
    with anyio.move_on_after(STOP_S, shield=True) as scope:
        try:
            await sandbox.stop()
        except Exception:
            _logger.exception("sandbox %s could not be stopped", sandbox.name)
    if scope.cancelled_caught:
        _logger.error("sandbox %s could not be stopped within %g s", sandbox.name, STOP_S)

"""One container with a daemon inside."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread
from docker import errors

from hermes_backend_docker._attachment import STDERR, STDOUT, attach
from hermes_backend_docker._container import create, remove
from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import LastWords, ReadyLine, connect_unix, require_slots

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from hermes_backend_docker._attachment import Attachment
    from hermes_backend_docker._container import ContainerPlan
    from hermes_backend_docker._engine import Engine

__all__ = ["DockerSandbox"]

LONGEST_READY = 1 << 16

_logger = logging.getLogger(__name__)


class DockerSandbox:
    """A container, and the connection to its standard input that it lives by.

    The daemon inside, which is the container's PID 1, ends when that connection does, which the kernel sees to even if
    this process is killed; and the engine removes the container once it has ended.

    Args:
        engine: Runs it.
        plan: What it is.
    """

    def __init__(self, engine: Engine, plan: ContainerPlan) -> None:
        self._engine = engine
        self._plan = plan
        self._attachment: Attachment | None = None
        self._ready = b""
        self._said = LastWords(plan.name.name)
        self._announced = anyio.Event()
        self._ended = False
        self._why: str | None = None
        self._stop_lock = anyio.Lock()
        self._stopping = False
        self._stopped = False

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""
        return self._plan.name.name

    @property
    def capacity(self) -> int:
        """How many slots it hosts."""
        return self._plan.slots

    @property
    def token(self) -> None:
        """None: the folder of the socket is closed to others."""
        return

    @property
    def title(self) -> str:
        """The container's name on the engine."""
        return self._plan.title

    @property
    def stopped(self) -> bool:
        """Whether `stop` has done its work."""
        return self._stopped

    async def launch(self) -> None:
        """Create the container, attach to it and start it."""
        await self._engine.work(partial(create, plan=self._plan))
        await self._engine.work(self._attach)
        await self._engine.call("start", self.title)

    def _attach(self, client: Any) -> None:  # noqa: ANN401 - the SDK has no types
        # Kept here and now: whoever is cancelled never sees what the thread returns.
        self._attachment = attach(client, self.title)

    async def drain(self) -> None:
        """Keep the last lines of the daemon's standard error until it ends."""
        assert self._attachment is not None
        async for kind, piece in self._attachment.output():
            if kind == STDOUT and not self._announced.is_set():
                self._ready += piece
                if b"\n" in self._ready or len(self._ready) > LONGEST_READY:
                    self._announced.set()
            elif kind == STDERR:
                self._said.feed(piece.decode(errors="replace"))
        self._said.finish()
        if not self._stopping:
            self._why = await self._find_out()
        self._ended = True
        self._announced.set()

    async def wait_ready(self) -> ReadyLine:
        """Wait until the daemon takes connections; return what it says of itself.

        Raises:
            SandboxLostError: It ended instead.
            BackendUnavailableError: It cannot work with the settings, or can open no slot here.
        """
        await self._announced.wait()
        line, complete, _ = self._ready.partition(b"\n")
        if not complete:
            # The engine may have removed the container, and its status with it.
            raise self._said.refusal or SandboxLostError(self._why_dead())
        ready = ReadyLine.parse(line)
        require_slots(ready.obstacle, "in containers here")
        return ready

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon."""
        if self._stopping or self._ended:
            raise SandboxLostError(self._why_dead())
        return connect_unix(self._plan.place.socket)

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""
        return self._why_dead() if self._stopping or self._ended or self._attachment is None else None

    async def stop(self) -> None:
        """Remove the container with all that is in it; idempotent."""
        with anyio.CancelScope(shield=True):
            async with self._stop_lock:
                if self._stopped:
                    return
                self._stopping = True
                if self._attachment is not None:
                    await self._attachment.aclose()
                try:
                    await self._engine.work(partial(remove, title=self.title))
                except HermesError as error:
                    _logger.warning("the container %s could not be removed: %s", self.title, error)
                # Without its lock what may be left counts as left behind.
                await to_thread.run_sync(self._plan.place.release)
                self._stopped = True

    async def _find_out(self) -> str | None:
        """Return why the container has ended, if the engine still knows."""
        try:
            state = (await self._engine.call("inspect_container", self.title))["State"]
        except HermesError as error:
            return None if isinstance(error.__cause__, errors.NotFound) else error.message
        if state["OOMKilled"]:
            return "its memory was used up"
        return f"it ended with status {state['ExitCode']}" if not state["Running"] else None

    def _why_dead(self) -> str:
        if self._stopping:
            return f"sandbox {self.name} was stopped"
        said = "; ".join(filter(None, (self._why, *self._said.lines[-1:])))
        return f"the container of sandbox {self.name} is gone{': ' + said if said else ''}"

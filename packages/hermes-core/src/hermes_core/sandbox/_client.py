"""The client of one sandbox's daemon: one connection at a time, shared by all of its slots."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from anyio import TASK_STATUS_IGNORED, Event
from anyio.lowlevel import checkpoint

from hermes_core.exceptions import BackendUnavailableError, HermesError, ProtocolError, SandboxLostError
from hermes_core.sandbox._outbox import WRITE_BYTES
from hermes_core.sandbox._refusals import UnknownSlotError, refusal_error
from hermes_core.sandbox._session import HELLO_ID, Session
from hermes_core.sandbox._socket_stream import tls_obstacle
from hermes_sandboxd import PROTOCOL_VERSION, FrameDecoder, FrameError, encode_frame

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping

    from anyio.abc import ByteStream, TaskStatus

    from hermes_core.sandbox._exchange import Exchange
    from hermes_core.sandbox._protocol import Sandbox

__all__ = ["OutputCallback", "SandboxClient", "SandboxFacts"]

OutputCallback: TypeAlias = Callable[[str, bytes], Awaitable[None] | None]
"""Takes live output as (`stdout` or `stderr`, bytes)."""

READ_BYTES = 1 << 18
HELLO_S = 10.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.01, 0.5

_STREAM_ERRORS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What a daemon says about itself.

    Attributes:
        daemon_id: Its identity: another one means another sandbox.
        version: Its version.
        isolation: The level that its slots get.
        capacity: How many slots it hosts.
        limits: What it enforces, and how.
        obstacle: Why no slot can be opened there, in one line with a hint; None if slots can.
        missing: Folders that slots were to have copies of if the image has them, and that it does not have.
    """

    daemon_id: str
    version: str
    isolation: str
    capacity: int
    limits: Mapping[str, Any] = field(default_factory=dict)
    obstacle: str | None = None
    missing: tuple[str, ...] = ()


class SandboxClient:
    """Speaks the sandbox protocol to one daemon, across dropped connections.

    Its tasks are those of `run`, which somebody long-lived starts in a task group. Callers of `request` only wait on
    an event: however they are cancelled, the connection and everyone else's requests are untouched.

    Args:
        sandbox: Where to connect to.
        reconnect_s: Seconds of failing to connect after which the sandbox counts as lost.
    """

    def __init__(self, sandbox: Sandbox, *, reconnect_s: float = 10.0) -> None:
        self._sandbox = sandbox
        self._reconnect_s = reconnect_s
        self._session_id = uuid.uuid4().hex
        self._wake = Event()
        self._session = Session(self._wake_writer)
        self._connection: anyio.CancelScope | None = None
        self._ended = Event()
        self._closed = False
        self._scope = anyio.CancelScope()
        self._facts: SandboxFacts | None = None

    @property
    def lost(self) -> str | None:
        """Why the sandbox is gone, or None while it lives."""
        return self._session.lost

    @property
    def facts(self) -> SandboxFacts:
        """What the daemon said of itself; there once `run` has reported to be started."""
        if self._facts is None:
            raise ProtocolError("the sandbox daemon has not been reached yet")
        return self._facts

    @property
    def batch_sizes(self) -> Counter[int]:
        """How many requests travelled in one write, to how often."""
        return self._session.batch_sizes

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Keep connected until cancelled or until the sandbox is lost; reports started after the first hello.

        Raises:
            SandboxError: The daemon could not be reached at all. Later losses are told to the requests and by `lost`.
        """
        try:
            with self._scope:
                await self._stay_connected(task_status)
        except HermesError as error:
            self._session.lose(error.message)
            if self._facts is None:
                raise
        except Exception as error:
            _logger.exception("the client of sandbox %s failed", self._sandbox.name)
            self._session.lose(f"the client of sandbox {self._sandbox.name} failed: {error!r}")
        finally:
            self._session.lose(f"sandbox {self._sandbox.name} was stopped")
            self._ended.set()

    def close(self, reason: str) -> None:
        """End `run` soon; requests that are not answered learn the reason."""
        self._closed = True
        self._session.lose(reason)
        self._scope.cancel()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, so that `lost` is no accident."""
        return self._closed

    async def wait_ended(self) -> None:
        """Wait until `run` is over: the sandbox was lost or the client closed; `lost` says which."""
        await self._ended.wait()

    def reconnect(self) -> None:
        """Drop the connection, if there is one, and make another: the daemon does not answer on this one."""
        if self._connection is not None:
            self._connection.cancel()

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        *,
        slot: int | None = None,
        body: bytes | memoryview = b"",
        on_output: OutputCallback | None = None,
    ) -> Exchange:
        """Send a request and wait for its answer.

        Cancelling asks the daemon to end the request, and does not wait for that.

        Args:
            method: A method of the protocol.
            params: Its parameters.
            slot: The slot that it is about, so that `cancel_slot` finds it.
            body: The body to send with it.
            on_output: Called with live output, in order; while it is busy the command is held up, and nothing else.

        Returns:
            The exchange, with `result` set.

        Raises:
            SandboxLostError: The sandbox is gone; whether the request ran is unknown.
            HermesError: The daemon refused, see `refusal_error`.
        """
        session = self._session
        exchange = session.open(method, params, slot=slot, body=body, live=on_output is not None)
        try:
            if on_output is None:
                await exchange.changed.wait()
            else:
                await self._deliver(exchange, on_output)
        except BaseException:
            session.abandon(exchange)
            raise
        if exchange.refusal is not None:
            error = refusal_error(exchange.refusal)
            if isinstance(error, SandboxLostError) and not isinstance(error, UnknownSlotError):
                session.lose(error.message)  # it answers for the last time
                self._scope.cancel()
            raise error
        if exchange.result is None:
            raise SandboxLostError(exchange.lost or "the sandbox daemon answered with nothing")
        return exchange

    def cancel_slot(self, slot: int) -> None:
        """Ask every request of a slot to end, without waiting."""
        self._session.cancel_slot(slot)

    async def leave(self) -> None:
        """Give all slots back and end `run`, and let others open them; the sandbox lives on.

        Raises:
            SandboxLostError: The sandbox is gone, or was while it was told.
        """
        try:
            await self.request("session.end", {})
        finally:
            self.close(f"sandbox {self._sandbox.name} was left")

    async def _stay_connected(self, task_status: TaskStatus[None]) -> None:
        while True:
            first = self._facts is None
            stream, decoder = await self._establish()
            if first:
                task_status.started()
            try:
                await self._serve(stream, decoder)
            finally:
                self._session.disconnected()
                await anyio.aclose_forcefully(stream)

    async def _deliver(self, exchange: Exchange, on_output: OutputCallback) -> None:
        while True:
            while exchange.output:
                stream, data, connection = exchange.output.popleft()
                done = on_output(stream, data)
                if isawaitable(done):
                    await done
                self._session.consumed(exchange, len(data), connection)
            if exchange.answered:
                return
            exchange.changed = Event()
            await exchange.changed.wait()

    def _wake_writer(self) -> None:
        self._wake.set()

    async def _establish(self) -> tuple[ByteStream, FrameDecoder]:
        """Connect and say hello, again and again until the deadline."""
        deadline = anyio.current_time() + self._reconnect_s
        pause = FIRST_PAUSE_S
        while True:
            try:
                return await self._connect()
            except (*_STREAM_ERRORS, TimeoutError) as error:
                if (obstacle := tls_obstacle(error)) is not None:
                    raise BackendUnavailableError(
                        f"TLS cannot be spoken with sandbox {self._sandbox.name}: {obstacle}",
                        hint="give both ends certificates of the same authority",
                    ) from error
                cause = str(error) or type(error).__name__
            dead = await self._sandbox.alive()
            if dead is not None:
                raise SandboxLostError(dead)
            if anyio.current_time() + pause > deadline:
                raise SandboxLostError(
                    f"sandbox {self._sandbox.name} could not be reached for {self._reconnect_s:g} s: {cause}"
                )
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _connect(self) -> tuple[ByteStream, FrameDecoder]:
        with anyio.fail_after(HELLO_S):
            stream = await self._sandbox.connect()
            try:
                decoder = FrameDecoder()
                frames = await self._hello(stream, decoder)
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
        self._session.connected()
        self._session.receive(frames)
        return stream, decoder

    async def _hello(self, stream: ByteStream, decoder: FrameDecoder) -> list[tuple[dict[str, Any], bytes | None]]:
        """Say hello; return the frames that came right behind the answer."""
        params: dict[str, object] = {
            "protocol": PROTOCOL_VERSION,
            "token": self._sandbox.token,
            "session": self._session_id,
            "features": [],
        }
        await stream.send(encode_frame({"jsonrpc": "2.0", "id": HELLO_ID, "method": "hello", "params": params}))
        frames: list[tuple[dict[str, Any], bytes | None]] = []
        try:
            while not frames:
                frames = decoder.feed(await stream.receive(READ_BYTES))
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            # What a daemon does that speaks TLS, or accepts no certificate of ours, as well as one that dies.
            raise ConnectionResetError("the connection ended before hello was answered") from error
        except FrameError as error:
            raise ProtocolError(f"sandbox {self._sandbox.name} does not speak the sandbox protocol: {error}") from None
        answer = frames.pop(0)[0]
        if "error" in answer:
            raise refusal_error(answer["error"])
        self._recognise(answer["result"])
        return frames

    def _recognise(self, hello: Mapping[str, Any]) -> None:
        """Take the daemon's answer to hello, and see that it is still the same daemon with our slots."""
        facts = SandboxFacts(
            daemon_id=hello["daemon_id"],
            version=hello["version"],
            isolation=hello["isolation"],
            capacity=hello["capacity"],
            limits=hello.get("limits") or {},
            obstacle=hello.get("obstacle"),
            missing=tuple(hello.get("missing") or ()),
        )
        if self._facts is not None:
            if facts.daemon_id != self._facts.daemon_id:
                raise SandboxLostError(f"the daemon of sandbox {self._sandbox.name} was started anew")
            if not hello.get("resumed"):
                raise SandboxLostError(f"sandbox {self._sandbox.name} gave up our slots while it could not be reached")
        self._facts = facts

    async def _serve(self, stream: ByteStream, decoder: FrameDecoder) -> None:
        """Read and write until the connection ends."""
        defect: Exception | None = None
        async with anyio.create_task_group() as tasks:
            self._connection = tasks.cancel_scope
            tasks.start_soon(self._write, stream, tasks.cancel_scope)
            try:
                while True:
                    self._session.receive(decoder.feed(await stream.receive(READ_BYTES)))
            except _STREAM_ERRORS as error:
                _logger.debug("sandbox %s: the connection ended: %r", self._sandbox.name, error)
            except (FrameError, ProtocolError, LookupError, TypeError) as error:
                defect = error
            tasks.cancel_scope.cancel()
        self._connection = None
        if defect is not None:
            raise ProtocolError(f"sandbox {self._sandbox.name} broke the sandbox protocol: {defect}") from defect

    async def _write(self, stream: ByteStream, connection: anyio.CancelScope) -> None:
        take = self._session.take
        try:
            while True:
                # Everything that became ready since the last write leaves in one.
                if data := take():
                    await stream.send(data)
                    if len(data) >= WRITE_BYTES:
                        await checkpoint()  # a stream need not yield, and large bodies would hold up everyone
                else:
                    self._wake = Event()
                    await self._wake.wait()
        except _STREAM_ERRORS:
            connection.cancel()

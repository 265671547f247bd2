"""The embedding API from synchronous code.

One portal thread runs the event loop; every call hands over to it and waits. Any thread may call. A forked child may
not: its portal thread did not survive the fork.

    from hermes_core.sync import Hermes

    with Hermes(backend="local") as hermes:
        with hermes.lease() as slot:
            print(slot.exec("echo hi").stdout)
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from hermes_core._hermes import Hermes as AsyncHermes
from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from anyio.from_thread import BlockingPortal

    from hermes_core.agent import Agent as AsyncAgent
    from hermes_core.agent import AgentRun
    from hermes_core.environments import Environment, Task
    from hermes_core.execution import BackgroundProcess as AsyncBackgroundProcess
    from hermes_core.execution import ExecResult, ProcessOutput, ToolCall, ToolResult, Transferred
    from hermes_core.execution import Grading as AsyncGrading
    from hermes_core.execution import Slot as AsyncSlot
    from hermes_core.models import Message, Model
    from hermes_core.runs import Run as AsyncRun
    from hermes_core.sandbox import Archive, Extracted, FileContent, JobOutput, Listing
    from hermes_core.slots import PoolStatus
    from hermes_core.terminals import KeysSent
    from hermes_core.terminals import TerminalSession as AsyncTerminalSession
    from hermes_core.trajectory import Step, Trajectory

__all__ = ["Agent", "BackgroundProcess", "Grading", "Hermes", "Run", "Slot", "TerminalSession"]

Result = TypeVar("Result")


class _Bridge:
    """Hands calls to the portal thread of one process."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._pid = os.getpid()

    @property
    def portal(self) -> BlockingPortal:
        """The portal.

        Raises:
            UsageError: In a forked child.
        """
        if os.getpid() != self._pid:
            raise UsageError("this Hermes belongs to the parent process", hint="make one after the fork, or use spawn")
        return self._portal

    def call(self, function: Callable[..., Awaitable[Result]], *args: Any, **kwargs: Any) -> Result:  # noqa: ANN401
        """Run an async function in the portal's loop and wait for it."""
        return self.portal.call(lambda: function(*args, **kwargs))


class Slot:
    """A leased slot; methods and errors as of `hermes_core.Slot`."""

    def __init__(self, slot: AsyncSlot, bridge: _Bridge) -> None:
        self._slot = slot
        self._bridge = bridge

    @property
    def asynchronous(self) -> AsyncSlot:
        """The slot as asynchronous code knows it."""
        return self._slot

    def exec(self, command: str | Sequence[str], **options: Any) -> ExecResult:  # noqa: ANN401 - those of Slot.exec
        """Run one command and wait for its end; options as of `hermes_core.Slot.exec`."""
        return self._bridge.call(self._slot.exec, command, **options)

    def start(self, command: str | Sequence[str], **options: Any) -> BackgroundProcess:  # noqa: ANN401 - those of Slot.start
        """Start a process that runs on in the background; options as of `hermes_core.Slot.start`."""
        return BackgroundProcess(self._bridge.call(self._slot.start, command, **options), self._bridge)

    def process(self, number: int) -> BackgroundProcess:
        """Return a new handle of a background process, which polls its output from the beginning."""
        return BackgroundProcess(self._slot.process(number), self._bridge)

    def call(self, call: ToolCall, *, timeout_s: float | None = None) -> ToolResult:
        """Run a tool call through the batch executor."""
        return self._bridge.call(self._slot.call, call, timeout_s=timeout_s)

    def write_file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Write a regular file."""
        self._bridge.call(self._slot.write_file, path, data, mode)

    def read_file(self, path: str, **options: Any) -> bytes:  # noqa: ANN401 - those of Slot.read_file
        """Read a regular file."""
        return self._bridge.call(self._slot.read_file, path, **options)

    def terminal(self, **options: Any) -> TerminalSession:  # noqa: ANN401 - those of Slot.terminal
        """Start a program in a terminal of its own; options as of `hermes_core.Slot.terminal`."""
        return TerminalSession(self._bridge.call(self._slot.terminal, **options), self._bridge)

    def read_part(self, path: str, **options: Any) -> FileContent:  # noqa: ANN401 - those of Slot.read_part
        """Read a regular file, or a part of it, and learn its size."""
        return self._bridge.call(self._slot.read_part, path, **options)

    def list_files(self, path: str = ".", **options: Any) -> Listing:  # noqa: ANN401 - those of Slot.list_files
        """List a folder."""
        return self._bridge.call(self._slot.list_files, path, **options)

    def archive(self, path: str = ".", **options: Any) -> bytes:  # noqa: ANN401 - those of Slot.archive
        """Return a folder's content, or a file, as tar.gz."""
        return self._bridge.call(self._slot.archive, path, **options)

    def pack(self, path: str = ".", **options: Any) -> Archive:  # noqa: ANN401 - those of Slot.pack
        """Pack a folder's content, or a file, and learn what is in the archive."""
        return self._bridge.call(self._slot.pack, path, **options)

    def extract(self, path: str, data: bytes | memoryview, **options: Any) -> Extracted:  # noqa: ANN401
        """Unpack a tar archive to a folder; options as of `hermes_core.Slot.extract`."""
        return self._bridge.call(self._slot.extract, path, data, **options)

    def upload(self, local: str | os.PathLike[str], remote: str, **options: Any) -> Transferred:  # noqa: ANN401
        """Copy a file, or a folder's content, of this machine into the slot."""
        return self._bridge.call(self._slot.upload, local, remote, **options)

    def download(self, remote: str, local: str | os.PathLike[str], **options: Any) -> Transferred:  # noqa: ANN401
        """Copy a file, or a folder's content, of the slot to this machine."""
        return self._bridge.call(self._slot.download, remote, local, **options)

    def grade(self, files: Mapping[str, bytes | str] | None = None, **options: Any) -> Grading:  # noqa: ANN401
        """End everything that the agent started, and look at its workspace; options as of `hermes_core.Slot.grade`."""
        return Grading(self._bridge.call(self._slot.grade, files, **options), self._bridge)

    def release(self) -> None:
        """Give the slot back; idempotent."""
        self._bridge.call(self._slot.release)


class BackgroundProcess:
    """A background process of a slot; methods and errors as of `hermes_core.BackgroundProcess`."""

    def __init__(self, process: AsyncBackgroundProcess, bridge: _Bridge) -> None:
        self._process = process
        self._bridge = bridge

    @property
    def number(self) -> int:
        """Its number within the lease."""
        return self._process.number

    def poll(self, *, wait_s: float = 0.0) -> ProcessOutput:
        """Return what it wrote since the last poll, and how it is."""
        return self._bridge.call(self._process.poll, wait_s=wait_s)

    def wait(self) -> ProcessOutput:
        """Wait for its end."""
        return self._bridge.call(self._process.wait)

    def read(self, offset: int = 0) -> JobOutput:
        """Return its output from a byte on."""
        return self._bridge.call(self._process.read, offset)

    def write(self, data: bytes | str = b"", *, end: bool = False) -> None:
        """Send data to its standard input."""
        self._bridge.call(self._process.write, data, end=end)

    def kill(self, signal: int = 9) -> None:
        """Signal it; 9 kills it with everything that it started."""
        self._bridge.call(self._process.kill, signal)


class TerminalSession:
    """A terminal of a slot; methods and errors as of `hermes_core.terminals.TerminalSession`."""

    def __init__(self, session: AsyncTerminalSession, bridge: _Bridge) -> None:
        self._session = session
        self._bridge = bridge

    @property
    def asynchronous(self) -> AsyncTerminalSession:
        """The session as asynchronous code knows it."""
        return self._session

    def send_keys(self, keys: str | Sequence[str], **options: Any) -> KeysSent:  # noqa: ANN401 - those of the original
        """Press keys."""
        return self._bridge.call(self._session.send_keys, keys, **options)

    def capture(self, *, history: bool = False) -> str:
        """Return what the screen shows."""
        return self._bridge.call(self._session.capture, history=history)

    def stream(self, offset: int = 0, max_bytes: int = 1 << 16) -> tuple[str, int]:
        """Return the recording from an offset on, and the offset of what follows."""
        return self._bridge.call(self._session.stream, offset, max_bytes)

    def resize(self, *, rows: int, columns: int) -> None:
        """Change the size."""
        self._bridge.call(self._session.resize, rows=rows, columns=columns)

    def close(self) -> int | None:
        """End the program; return its exit code."""
        return self._bridge.call(self._session.close)

    def __enter__(self) -> Self:
        """Nothing more to do: it was opened."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the program."""
        self.close()


class Grading:
    """Runs a scorer's commands; attributes, methods and errors as of `hermes_core.execution.Grading`."""

    def __init__(self, grading: AsyncGrading, bridge: _Bridge) -> None:
        self._grading = grading
        self._bridge = bridge
        self.files = grading.files
        self.workspace = grading.workspace

    @property
    def python(self) -> str:
        """An interpreter that the agent could not change."""
        return self._grading.python

    def exec(self, command: str | Sequence[str], **options: Any) -> ExecResult:  # noqa: ANN401 - those of Grading.exec
        """Run one command and wait for its end."""
        return self._bridge.call(self._grading.exec, command, **options)

    def read_file(self, path: str, **options: Any) -> bytes:  # noqa: ANN401 - those of Grading.read_file
        """Read a regular file."""
        return self._bridge.call(self._grading.read_file, path, **options)


class Agent:
    """An agent; methods and errors as of `hermes_core.Agent`."""

    def __init__(self, agent: AsyncAgent, bridge: _Bridge) -> None:
        self._agent = agent
        self._bridge = bridge

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self._agent.messages

    def chat(self, text: str) -> str:
        """Say something and return the final answer."""
        return self._bridge.call(self._agent.chat, text)

    def run(self, messages: str | Sequence[Message]) -> AgentRun:
        """Hear messages, then take steps until a final answer or a limit."""
        return self._bridge.call(self._agent.run, messages)

    def step(self) -> Step:
        """Take one turn."""
        return self._bridge.call(self._agent.step)


class Run:
    """A finished run; attributes as of `hermes_core.Run`."""

    def __init__(self, run: AsyncRun, bridge: _Bridge) -> None:
        self._run = run
        self._bridge = bridge
        self.statistics = run.statistics
        self.directory = run.directory

    def trajectories(self) -> Iterator[Trajectory]:
        """Read the run's trajectories from its files, one by one."""
        return _iterate(self._run.trajectories, self._bridge)


class Hermes:
    """As `hermes_core.Hermes`, for synchronous code.

    Args:
        loop: The event loop of the portal thread.
        arguments: Those of `hermes_core.Hermes`.
    """

    def __init__(self, *arguments: Any, loop: Literal["asyncio", "trio"] = "asyncio", **options: Any) -> None:  # noqa: ANN401
        self._make = lambda: AsyncHermes(*arguments, **options)
        self._loop = loop
        self._stack = ExitStack()
        self._inside: tuple[AsyncHermes, _Bridge] | None = None

    def __enter__(self) -> Self:
        """Start the portal thread and get ready."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(self._loop))
            hermes = portal.call(_made, self._make)
            stack.enter_context(portal.wrap_async_context_manager(hermes))
            self._inside = hermes, _Bridge(portal)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything."""
        if self._inside is not None and self._inside[1].portal:
            self._inside = None
            self._stack.__exit__(exc_type, exc, traceback)

    @contextmanager
    def lease(self, profile: str | None = None, **options: Any) -> Iterator[Slot]:  # noqa: ANN401 - those of Hermes.lease
        """Lease a slot; it is reset and given back on exit."""
        slot = self.acquire(profile, **options)
        try:
            yield slot
        finally:
            slot.release()

    def acquire(self, profile: str | None = None, **options: Any) -> Slot:  # noqa: ANN401 - those of Hermes.acquire
        """Lease a slot until `slot.release()`."""
        hermes, bridge = self._running
        return Slot(bridge.call(hermes.acquire, profile, **options), bridge)

    def call_many(self, calls: Iterable[tuple[Slot | None, ToolCall]]) -> list[ToolResult]:
        """Run tool calls of many slots at once and return their results in order."""
        hermes, bridge = self._running
        return bridge.call(hermes.call_many, [(slot.asynchronous if slot else None, call) for slot, call in calls])

    def pool_status(self) -> PoolStatus | None:
        """Counts of the slot pool."""
        return self._running[0].pool_status()

    def agent(self, model: str | Model, **options: Any) -> Agent:  # noqa: ANN401 - those of Hermes.agent
        """Make an agent."""
        hermes, bridge = self._running
        slot = options.pop("slot", None)

        async def make() -> AsyncAgent:
            return hermes.agent(model, slot=slot.asynchronous if slot else None, **options)

        return Agent(bridge.call(make), bridge)

    def run(self, environment: str | Environment, **options: Any) -> Run:  # noqa: ANN401 - those of Hermes.run
        """Run a model on an environment's tasks, and write the trajectories to a folder."""
        hermes, bridge = self._running
        return Run(bridge.call(hermes.run, environment, **options), bridge)

    def rollout(self, environment: str | Environment, task: Task, **options: Any) -> Trajectory:  # noqa: ANN401
        """Let an agent work on one task, and score what it did."""
        hermes, bridge = self._running
        return bridge.call(hermes.rollout, environment, task, **options)

    def stream(self, environment: str | Environment, **options: Any) -> Iterator[Trajectory]:  # noqa: ANN401
        """Yield trajectories as they end."""
        hermes, bridge = self._running
        return _iterate(lambda: hermes.stream(environment, **options), bridge)

    @property
    def _running(self) -> tuple[AsyncHermes, _Bridge]:
        if self._inside is None:
            raise UsageError("this Hermes is not entered", hint="with Hermes(...) as hermes:")
        return self._inside


async def _made(make: Callable[[], AsyncHermes]) -> AsyncHermes:
    """Make it inside the loop that it will live in."""
    return make()


def _iterate(begin: Callable[[], Any], bridge: _Bridge) -> Iterator[Any]:
    """Iterate over an async generator from outside its loop; it is closed when the iterator is."""

    async def make() -> Any:  # noqa: ANN401 - an async generator
        return begin()

    generator = bridge.call(make)
    try:
        while True:
            try:
                yield bridge.call(generator.__anext__)
            except StopAsyncIteration:
                return
    finally:
        bridge.call(generator.aclose)

"""The public face of a leased slot."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from hermes_core.exceptions import LeaseStateError, SandboxLostError
from hermes_core.execution._background import BackgroundProcess
from hermes_core.execution._belongings import Belongings
from hermes_core.execution._gate import Gate
from hermes_core.execution._request import CallRequest
from hermes_core.execution._result import ExecResult
from hermes_core.execution._slot_files import SlotFiles
from hermes_core.sandbox import OUTPUT_CAP
from hermes_core.terminals import TerminalSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from hermes_core.execution._call import ToolCall, ToolResult
    from hermes_core.execution._request import BatchExecutor
    from hermes_core.execution._tool import Tool
    from hermes_core.sandbox import NetworkPolicy, OpenedSlot, OutputCallback, SlotClient
    from hermes_core.slots import Lease, SlotPool
    from hermes_core.terminals import Recording

__all__ = ["HeldSlot", "Slot"]


class Slot(SlotFiles):
    """An isolated workspace, leased until `release`.

    Its commands, file requests and tool calls run one at a time, in order. It belongs to no task and no cancel scope:
    any task may use and release it. Cancelling an await kills the remote command and leaves the slot usable.

    Args:
        lease: The lease that it stands for.
        pool: Where the lease came from.
        executor: Runs `call`.
        tools: The tools that `call` knows, by name.
        task_id: The task that it is leased for, told to tools.
    """

    def __init__(
        self,
        lease: Lease,
        pool: SlotPool,
        executor: BatchExecutor,
        tools: Mapping[str, Tool],
        *,
        task_id: str | None = None,
    ) -> None:
        self._lease = lease
        self._pool = pool
        self._executor = executor
        self._tools = tools
        self._task_id = task_id
        self._gate = Gate(1)
        self._belongings = Belongings(lease.request)
        self._ended: str | None = None

    @property
    def trajectory_id(self) -> str | None:
        """Whose slot it is, if anyone said so."""
        return self._lease.request.trajectory_id

    @property
    def workspace(self) -> str:
        """The working folder of commands, as seen from inside."""
        return self._opened.workspace

    @property
    def home(self) -> str:
        """The home folder, as seen from inside."""
        return self._opened.home

    @property
    def network(self) -> NetworkPolicy:
        """The slot's network policy."""
        return self._opened.network

    @property
    def isolation(self) -> str:
        """The isolation level that the slot got."""
        return self._opened.isolation

    @property
    def lease(self) -> Lease:
        """The lease behind it, for executors and tests."""
        return self._lease

    @property
    def belongings(self) -> Belongings:
        """What tools keep between two calls; it ends with the lease."""
        return self._belongings

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 30.0,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_output: OutputCallback | None = None,
    ) -> ExecResult:
        """Run one command and wait for its end.

        Args:
            command: A line for `/bin/sh`, or a program and its arguments.
            timeout_s: Seconds after which it is killed with everything that it started; they count from its start.
            stdin: Its standard input.
            env: Variables on top of the slot's.
            cwd: Where to run it, relative to the workspace; None for the workspace.
            on_output: Called with (`stdout` or `stderr`, bytes) while it runs, and awaited if it returns an awaitable.
                A slow one holds up this command only.

        Returns:
            What happened, also when it failed, timed out or breached a limit.

        Raises:
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
        """
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        await self._gate.enter()
        try:
            self._check()
            outcome = await self._lease.client.exec(
                argv,
                timeout_s=timeout_s,
                stdin=stdin.encode() if isinstance(stdin, str) else stdin,
                env=env,
                cwd=cwd,
                on_output=on_output,
            )
        finally:
            self._gate.leave()
        if outcome.cancelled:
            raise LeaseStateError("the lease ended while the command ran")
        return ExecResult(
            outcome.exit_code,
            outcome.signal,
            outcome.stdout.decode("utf-8", "replace"),
            outcome.stderr.decode("utf-8", "replace"),
            outcome.stdout_bytes,
            outcome.stderr_bytes,
            outcome.timed_out,
            outcome.limit,
            outcome.truncated,
            outcome.duration_s,
        )

    async def start(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output_cap: int = OUTPUT_CAP,
    ) -> BackgroundProcess:
        """Start a process that runs on in the background, also through the timeouts of other commands.

        Cancelling may leave it running without a handle, until the lease ends.

        Args:
            command: A line for `/bin/sh`, or a program and its arguments.
            env: Variables on top of the slot's.
            cwd: Where to run it, relative to the workspace; None for the workspace.
            output_cap: Bytes of its output to keep: the last ones, at most 64 MiB.

        Raises:
            SlotJobError: It cannot be started, or 64 run already; `kind` says which.
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
        """
        argv = ("/bin/sh", "-c", command) if isinstance(command, str) else command
        async with self._turn() as client:
            return self.process(await client.start(argv, env=env, cwd=cwd, output_cap=output_cap))

    def process(self, number: int) -> BackgroundProcess:
        """Return a new handle of a background process, which polls its output from the beginning.

        Args:
            number: The `number` of another handle; whether there is such a process is found out by the first request.
        """
        return BackgroundProcess(number, self._turn)

    async def terminal(
        self,
        *,
        rows: int = 40,
        columns: int = 120,
        argv: Sequence[str] | None = None,
        recording: Recording | None = None,
    ) -> TerminalSession:
        """Start a program in a terminal of its own.

        Args:
            rows: Height of the terminal, 10 to 200.
            columns: Its width, 20 to 500.
            argv: The program and its arguments; a shell by default, bash if the slot has it.
            recording: Where it is recorded. By default in the run's folder, and outside of runs in memory.

        Raises:
            UsageError: The size is out of bounds.
            SlotJobError: The program cannot be started.
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
        """
        return await TerminalSession.open(
            self._turn, argv, rows=rows, columns=columns, recording=recording or self._belongings.new_recording
        )

    def attached(self, session: TerminalSession) -> TerminalSession:
        """Return another handle of a terminal of this slot, whose requests take their turn as those of this object."""
        return session.through(self._turn)

    async def call(self, call: ToolCall, *, timeout_s: float | None = None) -> ToolResult:
        """Run a tool call through the batch executor.

        Args:
            call: The call.
            timeout_s: Overrides the tool's own timeout in seconds.

        Raises:
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
        """
        self._check()
        request = CallRequest(call, self._tools, self, self.trajectory_id, self._task_id, timeout_s)
        return (await self._executor.execute((request,)))[0]

    async def release(self) -> None:
        """Give the slot back and wait until it is reset; idempotent.

        It is given back at once: cancelling only ends the waiting.
        """
        self._ended = self._ended or "the slot was released"
        self._belongings.clear()
        self._pool.give_back(self._lease)
        await self._pool.settled(self._lease)

    async def take_turn(self) -> HeldSlot:
        """Wait until nothing else runs in the slot, and keep it so until `end_turn` of what is returned.

        Executors hold the turn of a slot for a sandbox tool, whose commands then are not mixed with others.
        """
        await self._gate.enter()
        try:
            self._check()
        except BaseException:
            self._gate.leave()
            raise
        return HeldSlot(self)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[SlotClient]:
        await self._gate.enter()
        try:
            self._check()
            yield self._lease.client
        finally:
            self._gate.leave()

    @property
    def _opened(self) -> OpenedSlot:
        opened = self._lease.client.opened
        if opened is None:
            raise SandboxLostError("the slot was never opened")
        return opened

    def _check(self) -> None:
        if self._ended is not None:
            raise LeaseStateError(self._ended)


class HeldSlot(Slot):
    """The slot as a tool sees it that already holds its turn; it ends with the tool call.

    Its requests do not queue behind the turn that they are part of. They reach the slot in the order in which they
    are made.
    """

    def __init__(self, owner: Slot) -> None:
        super().__init__(owner._lease, owner._pool, owner._executor, owner._tools, task_id=owner._task_id)
        self._owner = owner
        self._gate = _OPEN
        self._belongings = owner._belongings

    async def release(self) -> NoReturn:
        """Refuse: the lease is not the tool's."""
        raise LeaseStateError("a tool cannot release the slot that it was lent")

    def end_turn(self) -> None:
        """Let the next one in; this handle is of no use any more."""
        if self._ended is None:
            self._ended = "the tool call that the slot was lent to has ended"
            self._owner._gate.leave()

    def _check(self) -> None:
        super()._check()
        self._owner._check()


class _OpenGate(Gate):
    """Lets everyone in."""

    __slots__ = ()

    async def enter(self) -> None:
        return

    def leave(self) -> None:
        return


_OPEN = _OpenGate(0)

"""The public face of a leased slot."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from hermes_core.exceptions import LeaseStateError, SandboxLostError
from hermes_core.execution._background import BackgroundProcess
from hermes_core.execution._belongings import Belongings
from hermes_core.execution._gate import Gate
from hermes_core.execution._grading import Grading, tar_of
from hermes_core.execution._request import CallRequest
from hermes_core.execution._result import exec_result
from hermes_core.execution._slot_files import SlotFiles
from hermes_core.sandbox import OUTPUT_CAP
from hermes_core.terminals import TerminalSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from hermes_core.execution._call import ToolCall, ToolResult
    from hermes_core.execution._request import BatchExecutor
    from hermes_core.execution._result import ExecResult
    from hermes_core.execution._tool import Tool
    from hermes_core.sandbox import LimitValue, NetworkPolicy, OpenedSlot, OutputCallback, SlotClient
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
        self._graded = False

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
        merge: bool = False,
        cpu_s: float | None = None,
        output_bytes: int | None = None,
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
            merge: Send standard error to standard output, in the order in which it was written.
            cpu_s: Seconds of processor time of each of its processes; None for the slot's own limit.
            output_bytes: Bytes to keep of each stream, head and tail; None for the slot's own limit.

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
                merge=merge,
                cpu_s=cpu_s,
                output_cap=output_bytes,
            )
        finally:
            self._gate.leave()
        if outcome.cancelled:
            raise LeaseStateError("the lease ended while the command ran")
        return exec_result(outcome)

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

    async def grade(
        self,
        files: Mapping[str, bytes | str] | None = None,
        *,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, LimitValue] | None = None,
    ) -> Grading:
        """End everything that the agent started, and look at its workspace from new namespaces; works on a dead slot.

        The home folder and `/tmp` are fresh, no process of the agent lives, and nothing that it wrote outside the
        workspace is left. From now on the slot is the scorer's: tools and `exec` are refused.

        Args:
            files: Path to content of the grader's own files. They are in a folder outside the workspace that nobody
                inside can write; paths are relative to it.
            network: Network policy of the grader's commands.
            env: Variables of the grader's commands.
            limits: Limits that differ from the daemon's defaults (docs/reference/protocol.md).

        Returns:
            A handle that runs the grader's commands. It ends with the lease.

        Raises:
            SlotDeadError: What runs in the slot cannot be ended.
            SandboxLostError: The sandbox is gone.
            LeaseStateError: The lease has ended.
            UsageError: A path leads outside, or a limit is unknown.
        """
        archive = tar_of(files or {})
        await self._gate.enter()
        try:
            self._check(grading=True)
            self._graded = True
            opened = await self._lease.client.grade(archive, network=network, env=env, limits=limits)
        finally:
            self._gate.leave()
        return Grading(self._lease.client, opened, self._gate)

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

    def _check(self, *, grading: bool = False) -> None:
        if self._ended is not None:
            raise LeaseStateError(self._ended)
        if self._graded and not grading:
            raise LeaseStateError("the slot is being graded", hint="run commands with what `grade` returned")


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

    async def grade(self, *arguments: object, **options: object) -> NoReturn:
        """Refuse: the agent does not grade itself."""
        raise LeaseStateError("a tool cannot grade the slot that it was lent")

    async def release(self) -> NoReturn:
        """Refuse: the lease is not the tool's."""
        raise LeaseStateError("a tool cannot release the slot that it was lent")

    def end_turn(self) -> None:
        """Let the next one in; this handle is of no use any more."""
        if self._ended is None:
            self._ended = "the tool call that the slot was lent to has ended"
            self._owner._gate.leave()

    def _check(self, *, grading: bool = False) -> None:
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

"""One slot of a sandbox, as the protocol has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from hermes_core.sandbox._file_requests import FileRequests
from hermes_core.sandbox._job_requests import JobRequests
from hermes_core.sandbox._refusals import UnknownSlotError
from hermes_core.sandbox._slot_requests import OUTPUT_CAP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.sandbox._client import OutputCallback, SandboxClient
    from hermes_core.sandbox._isolation import LimitValue
    from hermes_core.sandbox._protocol import NetworkPolicy

__all__ = ["CommandOutcome", "OpenedSlot", "SlotClient"]


@dataclass(frozen=True, slots=True)
class OpenedSlot:
    """What a slot is like once it is open.

    Attributes:
        isolation: The isolation level that it got.
        workspace: Its working folder, as seen from inside.
        home: Its home folder, as seen from inside.
        network: Its network policy.
        limits: Its limits by name; None for no limit.
        files: Folder of the grader's files, as seen from inside; None unless the slot is being graded.
        python: An interpreter that the agent could not change; None if there is none, or the slot is not being graded.
    """

    isolation: str
    workspace: str
    home: str
    network: NetworkPolicy
    limits: Mapping[str, LimitValue] = field(default_factory=dict)
    files: str | None = None
    python: str | None = None


@dataclass(slots=True)
class CommandOutcome:
    """The outcome of one command, in bytes; fields as in `slot.exec` of the protocol."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    cancelled: bool
    limit: str | None
    truncated: bool
    stdout_bytes: int
    stderr_bytes: int
    duration_s: float
    stdout: bytes = b""
    stderr: bytes = b""
    report: bytes | None = None


class SlotClient(JobRequests, FileRequests):
    """Makes requests about one slot.

    Args:
        client: The client of its sandbox.
        index: The slot's number within the sandbox.
        cpu_s: Seconds of processor time of each process of a command that does not say; None for no limit.
        output_cap: Bytes to keep of each output stream of a command that does not say.
    """

    def __init__(
        self, client: SandboxClient, index: int, *, cpu_s: float | None = None, output_cap: int = OUTPUT_CAP
    ) -> None:
        super().__init__(client, index)
        self._cpu_s = cpu_s
        self._output_cap = output_cap
        self.opened: OpenedSlot | None = None
        """What the slot is like; None before `open`."""

    async def open(
        self,
        *,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> OpenedSlot:
        """Make the slot's namespaces and workspace.

        Args:
            network: Its network policy.
            env: Variables of every command.
            limits: Limits that differ from the daemon's defaults.

        Raises:
            BackendUnavailableError: Isolation cannot be had there.
        """
        params = {"slot": self.index, "network": network, "env": dict(env or {}), "limits": dict(limits or {})}
        exchange = await self._client.request("slot.open", params, slot=self.index)
        return self._take_note(cast("Mapping[str, Any]", exchange.result))

    async def grade(
        self,
        files: bytes,
        *,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> OpenedSlot:
        """End all that runs in the slot, and make new namespaces over its workspace; works on a dead slot.

        Args:
            files: A tar of regular files and folders, for a folder that nobody inside can write.
            network: Network policy from now on.
            env: Variables of every command from now on.
            limits: Limits that differ from the daemon's defaults, from now on.

        Raises:
            BackendUnavailableError: Isolation cannot be had any more.
            SlotDeadError: What runs in the slot cannot be ended.
            SlotFileError: `files` is not such a tar, or is too large.
        """
        params = {"slot": self.index, "network": network, "env": dict(env or {}), "limits": dict(limits or {})}
        exchange = await self._client.request("slot.grade", params, slot=self.index, body=files)
        return self._take_note(cast("Mapping[str, Any]", exchange.result))

    def _take_note(self, opened: Mapping[str, Any]) -> OpenedSlot:
        self.opened = OpenedSlot(
            opened["isolation"],
            opened["workspace"],
            opened["home"],
            opened["network"],
            opened["limits"],
            opened.get("files"),
            opened.get("python"),
        )
        return self.opened

    async def exec(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        output_cap: int | None = None,
        cpu_s: float | None = None,
        merge: bool = False,
        report: bool = False,
        on_output: OutputCallback | None = None,
    ) -> CommandOutcome:
        """Run one command and wait for its end.

        Args:
            argv: The program and its arguments.
            timeout_s: Seconds after which it is killed with everything it started.
            stdin: Its standard input.
            env: Variables on top of the slot's.
            cwd: Where to run it, relative to the workspace; None for the workspace.
            output_cap: Bytes to keep of each stream; None for the slot's own.
            cpu_s: Seconds of processor time of each of its processes; None for the slot's own.
            merge: Send standard error to standard output.
            report: Give it a descriptor 3 that nothing else in the slot has (`slot.grade`).
            on_output: Called with live output.

        Raises:
            SlotDeadError: The slot died.
            SandboxLostError: The sandbox is gone.
        """
        params = {
            "slot": self.index,
            "argv": list(argv),
            "timeout_s": timeout_s,
            "cwd": cwd,
            "env": dict(env) if env else {},
            "stream": on_output is not None,
            "output_cap": self._output_cap if output_cap is None else output_cap,
            "cpu_s": self._cpu_s if cpu_s is None else cpu_s,
            "merge": merge,
            "report": report,
        }
        exchange = await self._client.request("slot.exec", params, slot=self.index, body=stdin, on_output=on_output)
        result = cast("Mapping[str, Any]", exchange.result)
        bodies = exchange.bodies()
        return CommandOutcome(
            result["exit_code"],
            result["signal"],
            result["timed_out"],
            result["cancelled"],
            result["limit"],
            result["truncated"],
            result["stdout_bytes"],
            result["stderr_bytes"],
            result["duration_s"],
            b"".join(bodies["stdout"]),
            b"".join(bodies["stderr"]),
            b"".join(bodies["report"]) if report else None,
        )

    async def reset(self) -> None:
        """Kill everything in the slot, empty it, verify that, and close it.

        Raises:
            SlotDeadError: It could not be verified to be clean.
        """
        try:
            # Without `slot`, so that `cancel_all` cannot hit it.
            await self._client.request("slot.reset", {"slot": self.index})
        except UnknownSlotError:
            return  # it is not open: opening it was refused, or cancelled before it began

    def cancel_all(self) -> None:
        """Ask every request of this slot to end, without waiting."""
        self._client.cancel_slot(self.index)

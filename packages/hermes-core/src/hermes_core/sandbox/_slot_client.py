"""One slot of a sandbox, as the protocol has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

from hermes_core.sandbox._artifacts import MAX_ENTRIES, Archive, Extracted, Listing, read_entries
from hermes_core.sandbox._jobs import JobInfo, JobOutput
from hermes_core.sandbox._refusals import UnknownSlotError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.sandbox._client import OutputCallback, SandboxClient
    from hermes_core.sandbox._isolation import LimitValue
    from hermes_core.sandbox._protocol import NetworkPolicy

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_OUTPUT_CAP",
    "OUTPUT_CAP",
    "CommandOutcome",
    "FileContent",
    "OpenedSlot",
    "SlotClient",
]

MAX_FILE_BYTES = 256 << 20
"""Default cap on a file that is read or written."""

OUTPUT_CAP = 1 << 20
"""Default number of bytes that are kept of each output stream."""

MAX_OUTPUT_CAP = 64 << 20
"""The highest number of bytes that can be kept of an output."""

JOIN_IN_THREAD_BYTES = 8 << 20
PARSE_IN_THREAD_BYTES = 1 << 20


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


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file, or a part of one.

    Attributes:
        data: Its bytes.
        size: Bytes of the whole file.
        sha256: Of the whole file in hexadecimal, if asked for.
    """

    data: bytes = field(repr=False)
    size: int
    sha256: str | None


class SlotClient:
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
        self._client = client
        self._cpu_s = cpu_s
        self._output_cap = output_cap
        self.index = index
        self.opened: OpenedSlot | None = None
        """What the slot is like; None before `open`."""

    @property
    def sandbox(self) -> SandboxClient:
        """The client of its sandbox."""
        return self._client

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

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        pty: tuple[int, int] | None = None,
        output_cap: int = OUTPUT_CAP,
    ) -> int:
        """Start a background process, which lives until it ends, is killed, or the lease ends; return its number.

        Args:
            argv: The program and its arguments.
            env: Variables on top of the slot's.
            cwd: Where to run it, relative to the workspace; None for the workspace.
            pty: Rows and columns of a terminal of its own; None for pipes.
            output_cap: Bytes to keep of its output: the last ones.

        Raises:
            SlotJobError: It cannot be started, or too many run.
        """
        params = {
            "slot": self.index,
            "argv": list(argv),
            "cwd": cwd,
            "env": dict(env) if env else {},
            "pty": None if pty is None else {"rows": pty[0], "columns": pty[1]},
            "output_cap": output_cap,
        }
        return int((await self._ask("slot.start", params))["job"])

    async def poll(self, job: int, *, offset: int = 0, max_bytes: int = OUTPUT_CAP, wait_s: float = 0.0) -> JobOutput:
        """Fetch output of a background process, and learn how it is.

        Args:
            job: Its number.
            offset: First byte to fetch, counted from the start of the whole output.
            max_bytes: Fetch no more than this.
            wait_s: Wait up to so many seconds (at most 10) for output beyond `offset` or the end of the process. All
                other requests of the slot wait meanwhile.

        Raises:
            SlotJobError: There is no such job.
        """
        params = {"slot": self.index, "job": job, "offset": offset, "max_bytes": max_bytes, "wait_s": wait_s}
        exchange = await self._client.request("slot.poll", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        return JobOutput(
            result["running"],
            result["exit_code"],
            result["signal"],
            result["limit"],
            result["offset"],
            result["end"],
            result["foreground"],
            tuple((at, seconds) for at, seconds in result["times"]),
            await _join(exchange.bodies()["output"]),
        )

    async def input(self, job: int, data: bytes | memoryview = b"", *, end: bool = False) -> int:
        """Send input to a background process, or type it in its terminal; return how many bytes.

        It waits only if more than 1 MiB is to be read by the process still, and then holds up all other requests of
        the slot.

        Args:
            job: Its number.
            data: The input.
            end: Close the standard input afterwards; in a terminal, type the end-of-file character.

        Raises:
            SlotJobError: There is no such job, or it takes no input any more.
        """
        params = {"slot": self.index, "job": job, "end": end}
        exchange = await self._client.request("slot.input", params, slot=self.index, body=data)
        return int(cast("Mapping[str, Any]", exchange.result)["size"])

    async def resize(self, job: int, rows: int, columns: int) -> None:
        """Change the size of a job's terminal.

        Raises:
            SlotJobError: There is no such job, or it has no terminal.
        """
        await self._ask("slot.resize", {"slot": self.index, "job": job, "rows": rows, "columns": columns})

    async def kill(self, job: int, signal: int = 9) -> None:
        """Signal a background process; nothing happens if it has ended.

        Args:
            job: Its number.
            signal: 9 kills its whole session and every descendant; any other signal goes to the foreground of its
                terminal, or to its process group without one.

        Raises:
            SlotJobError: There is no such job.
        """
        await self._ask("slot.kill", {"slot": self.index, "job": job, "signal": int(signal)})

    async def jobs(self) -> list[JobInfo]:
        """Return the background processes that are remembered, in order of their start."""
        result = await self._ask("slot.jobs", {"slot": self.index})
        return [
            JobInfo(
                entry["job"],
                tuple(entry["argv"]),
                entry["running"],
                entry["exit_code"],
                entry["signal"],
                entry["age_s"],
            )
            for entry in result["jobs"]
        ]

    async def read(
        self,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        max_bytes: int = MAX_FILE_BYTES,
        sha256: bool = False,
    ) -> FileContent:
        """Read a regular file.

        Args:
            path: Absolute, or relative to the workspace.
            offset: First byte to read.
            length: How many bytes to read; None for all that follow.
            max_bytes: Refuse to read more than this.
            sha256: Ask for the digest of the whole file.

        Raises:
            SlotFileError: It cannot be read; `kind` says why.
        """
        params = {
            "slot": self.index,
            "path": path,
            "offset": offset,
            "length": length,
            "max_bytes": max_bytes,
            "sha256": sha256,
        }
        exchange = await self._client.request("slot.read", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        return FileContent(await _join(exchange.bodies()["content"]), result["size"], result.get("sha256"))

    async def write(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        mode: int = 0o644,
        parents: bool = True,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> int:
        """Write a regular file, replacing what was there; return its size in bytes.

        Args:
            path: Absolute, or relative to the workspace.
            data: What to write.
            mode: Its permission bits.
            parents: Make missing folders on the way.
            max_bytes: Refuse to write more than this.

        Raises:
            SlotFileError: It cannot be written; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "mode": mode, "parents": parents, "max_bytes": max_bytes}
        exchange = await self._client.request("slot.write", params, slot=self.index, body=data)
        return int(cast("Mapping[str, Any]", exchange.result)["size"])

    async def list(self, path: str, *, recursive: bool = True, max_entries: int = MAX_ENTRIES) -> Listing:
        """List a folder, following no link; what is no folder is listed alone.

        Args:
            path: Absolute, or relative to the workspace.
            recursive: Whether to list what is in the folders below, too.
            max_entries: How many entries to return at most.

        Raises:
            SlotFileError: It cannot be listed; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "recursive": recursive, "max_entries": max_entries}
        exchange = await self._client.request("slot.list", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        data = await _join(exchange.bodies()["entries"])
        if len(data) <= PARSE_IN_THREAD_BYTES:
            entries = read_entries(data)
        else:
            entries = await to_thread.run_sync(read_entries, data)
        return Listing(entries, result["truncated"], result["unreadable"])

    async def archive(self, path: str, *, max_bytes: int = MAX_FILE_BYTES, max_entries: int = MAX_ENTRIES) -> Archive:
        """Pack a folder's content, or a file, following no link.

        Args:
            path: Absolute, or relative to the workspace.
            max_bytes: Refuse more bytes than this of all files together.
            max_entries: Refuse more files, folders and links.

        Raises:
            SlotFileError: It cannot be packed; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "max_bytes": max_bytes, "max_entries": max_entries}
        exchange = await self._client.request("slot.archive", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        return Archive(
            await _join(exchange.bodies()["content"]),
            result["kind"],
            result["entries"],
            result["size"],
            result["skipped"],
            result["shortened"],
        )

    async def extract(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Extracted:
        """Unpack a tar archive, compressed with gzip or not, to a folder, which is made if it is missing.

        Args:
            path: Absolute, or relative to the workspace.
            data: The archive.
            max_bytes: Refuse to write more bytes than this.
            max_entries: Refuse to make more files, folders and links.

        Raises:
            SlotFileError: It cannot be unpacked; `kind` says why. Nothing was written if that is `bad_archive`,
                `too_large` or `is_directory`.
        """
        params = {"slot": self.index, "path": path, "max_bytes": max_bytes, "max_entries": max_entries}
        exchange = await self._client.request("slot.extract", params, slot=self.index, body=data)
        result = cast("Mapping[str, Any]", exchange.result)
        return Extracted(result["entries"], result["size"])

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

    async def _ask(self, method: str, params: dict[str, Any]) -> Mapping[str, Any]:
        exchange = await self._client.request(method, params, slot=self.index)
        return cast("Mapping[str, Any]", exchange.result)


async def _join(chunks: list[bytes]) -> bytes:
    if len(chunks) == 1:
        return chunks[0]
    if sum(map(len, chunks)) <= JOIN_IN_THREAD_BYTES:
        return b"".join(chunks)
    # Copying hundreds of megabytes would hold up everyone else; bytes.join lets go of the interpreter lock.
    return await to_thread.run_sync(b"".join, chunks)

"""Requests about the background processes of a slot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hermes_core.sandbox._jobs import JobInfo, JobOutput
from hermes_core.sandbox._slot_requests import OUTPUT_CAP, SlotRequests, joined

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["JobRequests"]


class JobRequests(SlotRequests):
    """Starts, feeds, watches and ends background processes."""

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
            await joined(exchange.bodies()["output"]),
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

"""What the daemon tells of the background processes of a slot."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["JobInfo", "JobOutput"]


@dataclass(frozen=True, slots=True)
class JobOutput:
    """A part of a job's output, and how the job is; fields as in `slot.poll` of the protocol.

    Attributes:
        running: Whether the process that was started runs.
        exit_code: 0..255; None while it runs, and when it did not exit by itself.
        signal: The number of the signal that ended it, or None.
        limit: The limit whose breach ended it, or None.
        offset: Where `data` begins in the whole output, in bytes; more than was asked for if that is no longer kept.
        end: Bytes of the whole output so far; there is more to fetch if `data` ends before.
        foreground: Whether the program is itself in the foreground of its terminal; None without one, or once it ended.
        times: (offset, seconds since the start) of the reads that `data` came in.
        data: The output.
    """

    running: bool
    exit_code: int | None
    signal: int | None
    limit: str | None
    offset: int
    end: int
    foreground: bool | None
    times: tuple[tuple[int, float], ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job that the daemon remembers.

    Attributes:
        job: Its number within the lease.
        argv: The program and its arguments, shortened.
        running: Whether it runs.
        exit_code: As in `JobOutput`.
        signal: As in `JobOutput`.
        age_s: Seconds since its start.
    """

    job: int
    argv: tuple[str, ...]
    running: bool
    exit_code: int | None
    signal: int | None
    age_s: float

"""What a command in a slot gave back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.sandbox import CommandOutcome

__all__ = ["ExecResult", "exec_result"]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The outcome of one command.

    Attributes:
        exit_code: 0..255; None exactly when the command did not exit by itself.
        signal: The number of the signal that ended it, or None.
        stdout: Kept standard output, UTF-8 with replacement; head and tail around a counted marker when `truncated`.
        stderr: Kept standard error, likewise.
        stdout_bytes: How many bytes were written to standard output, kept or not.
        stderr_bytes: Likewise for standard error.
        timed_out: The command was killed at its deadline.
        limit: The limit that was breached, by name ("wall_time", "memory", …), or None.
        truncated: Some output was left out of `stdout` or `stderr`.
        duration_s: Wall time in seconds, as the supervisor measured it.
        report: What a grading command wrote to its descriptor 3; None for every other command.
    """

    exit_code: int | None
    signal: int | None
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    timed_out: bool
    limit: str | None
    truncated: bool
    duration_s: float
    report: bytes | None = None


def exec_result(outcome: CommandOutcome) -> ExecResult:
    """Return a command's outcome with its output as text."""
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
        outcome.report,
    )

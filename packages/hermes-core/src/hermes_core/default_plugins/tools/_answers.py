"""What tools that run commands tell the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core.execution import ExecResult, JsonValue

__all__ = ["DEFAULT_TIMEOUT_S", "TIMEOUT_RANGE_S", "clamped", "clipped", "command_answer", "why_ended"]

TIMEOUT_RANGE_S = (1.0, 600.0)
DEFAULT_TIMEOUT_S = 30.0
OUTPUT_CHARACTERS = 50_000


def clamped(timeout_s: float | None) -> float:
    """The seconds that a command may take, of what a model asked for."""
    low, high = TIMEOUT_RANGE_S
    return DEFAULT_TIMEOUT_S if timeout_s is None else min(max(timeout_s, low), high)


def command_answer(exit_code: int | None, stdout: str, stderr: str, error: str | None) -> dict[str, JsonValue]:
    """The result of a command."""
    answer: dict[str, JsonValue] = {"exit_code": exit_code, "stdout": clipped(stdout), "stderr": clipped(stderr)}
    if error is not None:
        answer["error"] = error
    return answer


def why_ended(done: ExecResult, timeout_s: float) -> str | None:
    """Why a command did not end by itself; None if it did."""
    if done.timed_out:
        breached = "" if done.limit in (None, "wall_time") else f"; limit {done.limit} exceeded"
        return f"killed after {timeout_s:g} s{breached}"
    if done.limit is not None:
        return f"killed: limit {done.limit} exceeded" if done.exit_code is None else f"limit {done.limit} exceeded"
    return None if done.signal is None else f"killed by signal {done.signal}"


def clipped(text: str) -> str:
    """Head and tail of a long output around a counted marker."""
    left_out = len(text) - OUTPUT_CHARACTERS
    if left_out <= 0:
        return text
    half = OUTPUT_CHARACTERS // 2
    return f"{text[:half]}\n[hermes: {left_out} characters left out]\n{text[-half:]}"

"""What the agent loop costs besides model and tools, and the recorder's share of it.

    python benchmarks/turns.py            # a table, and whether each bar is reached
    python benchmarks/turns.py --json     # the same as JSON

The engine is a fake that answers at once with the tokens it is told to, the environment is that of sums, whose tool
runs in this process: what is left is the loop, the record and the run's files.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import anyio
from report import Report

from hermes_core.execution import DefaultBatchExecutor, ToolCall
from hermes_core.models import AssistantTurn, Model, TurnTokens
from hermes_core.runs import Component, Resources, RolloutOptions, RunConfig, RunDirectory, Work, execute_run
from hermes_core.testing import SumsEnvironment, sums_tools
from hermes_core.trajectory import SegmentRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hermes_core.models import Conversation, ConversationStart, Message

TRAJECTORIES = 256
CONCURRENCY = 64
TURNS = 4
PER_TURN = 64
LONG = 32_768
REPEATS = 5


class InstantModel(Model):
    """Adds with the tool until its last turn, and says the sum; each turn extends the tokens of the last one."""

    name = "instant"

    def __init__(self, turns: int, tokens: int) -> None:
        self._tokens = turns_of(turns, tokens)

    def conversation(self, start: ConversationStart) -> Conversation:
        """Begin one."""
        return _Instant(self._tokens, int(start.task_id.rsplit("-", 1)[1]))


class _Instant:
    def __init__(self, tokens: Sequence[TurnTokens], number: int) -> None:
        self._tokens = tokens
        self._number = number
        self._turn = 0

    async def respond(self, messages: Sequence[Message], *, max_tokens: int | None = None) -> AssistantTurn:
        """Answer at once."""
        tokens = self._tokens[self._turn]
        self._turn += 1
        if self._turn == len(self._tokens):
            return AssistantTurn(str(self._number + 1), tokens=tokens)
        call = ToolCall("add", {"a": self._number, "b": 1})
        return AssistantTurn("", tool_calls=(call,), tokens=tokens)


def turns_of(turns: int, tokens: int) -> tuple[TurnTokens, ...]:
    """The tokens of a conversation that ends with so many of them: each turn samples a few and hears the rest."""
    step = tokens // turns
    ids = tuple(number % 30_000 for number in range(tokens))
    made: list[TurnTokens] = []
    for turn in range(1, turns + 1):
        end = turn * step
        begin = end - min(PER_TURN, step // 2)
        last = made[-1] if made else None
        made.append(TurnTokens(ids[:begin], ids[begin:end], (-0.5,) * (end - begin), "processed", after=last))
    return tuple(made)


class Stopwatch:
    """Counts the seconds that the recorder works; a context manager, which replaces its methods."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._add, self._segments = SegmentRecorder.add, vars(SegmentRecorder)["segments"].fget

    def __enter__(self) -> Self:
        """Begin to count."""
        SegmentRecorder.add = self._counted(self._add)  # type: ignore[method-assign]
        SegmentRecorder.segments = property(self._counted(self._segments))  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        """Put the methods back."""
        SegmentRecorder.add = self._add  # type: ignore[method-assign]
        SegmentRecorder.segments = property(self._segments)  # type: ignore[assignment,method-assign]

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: object) -> object:
            begin = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                self.spent_s += time.perf_counter() - begin

        return counted


async def loop_turns_s(turns: int, tokens: int, trajectories: int) -> float:
    """Turns per second through a whole run, its files included."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            run_id="bench",
            environment=Component(name="sums"),
            model=Component(name="instant"),
            tasks=trajectories,
            started_at=time.time(),
        )
        model = InstantModel(turns, tokens)
        options = RolloutOptions(retries=0)
        work = Work(SumsEnvironment(), model, trajectories, 1, CONCURRENCY, "train", 0, options, "bench")
        async with DefaultBatchExecutor() as executor:
            with RunDirectory.open(Path(folder) / "out", config) as directory:
                begin = time.perf_counter()
                run = await execute_run(Resources(executor, sums_tools), work, directory)
                elapsed = time.perf_counter() - begin
    if run.statistics.mean_reward != 1.0 or run.statistics.trajectories != trajectories:
        raise SystemExit(f"the run went wrong: {run.statistics.outcomes}")
    return turns * trajectories / elapsed


async def recorder_share(turns: int, tokens: int, trajectories: int) -> float:
    """The part of a run's seconds in which the recorder works: its turns, and the segments made of them."""
    with Stopwatch() as watch:
        per_s = await loop_turns_s(turns, tokens, trajectories)
    return watch.spent_s * per_s / (turns * trajectories)


def recorder_s(turns: int, tokens: int) -> float:
    """Seconds in which the recorder takes a conversation's turns, the median of some tries."""
    times = []
    for _ in range(REPEATS):
        spoken = turns_of(turns, tokens)
        begin = time.perf_counter()
        recorder = SegmentRecorder()
        for turn in spoken:
            recorder.add(turn)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


async def measure() -> Report:
    """Run everything."""
    short = await loop_turns_s(TURNS, TURNS * 2 * PER_TURN, TRAJECTORIES)
    long_turns_s = await loop_turns_s(8, LONG, 16)
    shares = [await recorder_share(8, LONG, 16) for _ in range(REPEATS)]
    few, many = recorder_s(8, LONG), recorder_s(32, LONG)
    report = Report()
    report.figures = {
        "turns/s": round(short, 1),
        "turns/s at 32k tokens": round(long_turns_s, 1),
        "recorder, 8 turns to 32k, ms": round(few * 1000, 3),
        "recorder, 32 turns to 32k, ms": round(many * 1000, 3),
    }
    report.bar("turns/s, 64 at once, 4 turns each", short, ">=", 400.0)
    report.bar("recorder's share at 32k tokens, 8 turns", statistics.median(shares), "<=", 0.05)
    # Linear in turns: four times the turns over the same tokens cost at most four times as much, and some noise.
    report.bar("recorder, 32 turns over 8 turns", many / few, "<=", 5.0)
    return report


def main() -> int:
    """Measure, print, and say by the exit code whether every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio", help="event loop")
    arguments = parser.parse_args()
    report = anyio.run(measure, backend=arguments.backend)
    print(report.as_json() if arguments.json else report.as_table())
    return 0 if report.reached else 1


if __name__ == "__main__":
    sys.exit(main())

"""Numbers of a run, kept as sums: they do not grow with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from hermes_core.trajectory import AGENT_OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_core.execution import JsonValue
    from hermes_core.trajectory import Trajectory

__all__ = ["RunStatistics", "Tally"]

_MOST_FAULTY_TASKS = 1_000


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """What `statistics.json` holds.

    Attributes:
        trajectories: Finished trajectories, each with a reward.
        failures: Trajectories that infrastructure spoiled for good.
        mean_reward: Over the finished ones; None without any.
        outcomes: Name to count, failures included.
        duration_s: Wall time in seconds, over all starts of the run as far as known.
        complete: Every trajectory was tried; False when the run was interrupted.
        metrics: Means over the finished trajectories that have the metric.
        tool_calls: In all.
        tool_calls_per_s: Calls a second since the last start.
        prompt_tokens: In all, as far as models say.
        completion_tokens: Likewise.
        infrastructure_faults: Spoiled attempts in all, those that were made good by a retry included.
        faults_by_task: The same by task; at most 1,000 tasks.
    """

    trajectories: int = 0
    failures: int = 0
    mean_reward: float | None = None
    outcomes: Mapping[str, int] = field(default_factory=dict)
    duration_s: float = 0.0
    complete: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)
    tool_calls: int = 0
    tool_calls_per_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    infrastructure_faults: int = 0
    faults_by_task: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, JsonValue]:
        """As a JSON object."""
        return asdict(self)


class Tally:
    """Counts trajectories as they end."""

    def __init__(self) -> None:
        self.trajectories = self.failures = 0
        self._reward = 0.0
        self._outcomes: Counter[str] = Counter()
        self._sums: dict[str, float] = {}
        self._counts: Counter[str] = Counter()
        self._faults = 0
        self._faults_by_task: Counter[str] = Counter()
        self._calls_before = 0.0

    def add(self, trajectory: Trajectory) -> None:
        """Count one trajectory, finished or failed."""
        self._outcomes[trajectory.outcome] += 1
        faults = int(trajectory.metrics.get("infrastructure_faults", 0))
        self._faults += faults
        known = self._faults_by_task
        if faults and (trajectory.task_id in known or len(known) < _MOST_FAULTY_TASKS):
            known[trajectory.task_id] += faults
        if trajectory.outcome not in AGENT_OUTCOMES or trajectory.reward is None:
            self.failures += 1
            return
        self.trajectories += 1
        self._reward += trajectory.reward
        for name, value in trajectory.metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] += 1

    def start(self) -> None:
        """Forget the time of what was counted so far: it belongs to an earlier start of the run."""
        self._calls_before = self._sums.get("tool_calls", 0.0)

    def statistics(self, *, elapsed_s: float, earlier_s: float = 0.0, complete: bool) -> RunStatistics:
        """The numbers now.

        Args:
            elapsed_s: Seconds since the last start.
            earlier_s: Seconds of earlier starts.
            complete: Whether everything was tried.
        """
        calls = self._sums.get("tool_calls", 0.0)
        return RunStatistics(
            trajectories=self.trajectories,
            failures=self.failures,
            mean_reward=self._reward / self.trajectories if self.trajectories else None,
            outcomes=dict(self._outcomes),
            duration_s=earlier_s + elapsed_s,
            complete=complete,
            metrics={name: total / self._counts[name] for name, total in sorted(self._sums.items())},
            tool_calls=int(calls),
            tool_calls_per_s=(calls - self._calls_before) / elapsed_s if elapsed_s > 0 else 0.0,
            prompt_tokens=int(self._sums.get("prompt_tokens", 0)),
            completion_tokens=int(self._sums.get("completion_tokens", 0)),
            infrastructure_faults=self._faults,
            faults_by_task=dict(self._faults_by_task),
        )

"""The built-in exporter: one line per token sequence."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from hermes_core.exporters import Exporter, ExportReport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_core.trajectory import Trajectory

__all__ = ["ROWS", "RowExporter"]


class RowExporter(Exporter):
    """JSON lines `{task_id, sample_index, segment, ids, mask, logprobs, reward}`, one for each segment.

    A trajectory of k segments gives k rows with the same reward.
    """

    name = "rows"

    def export(self, trajectories: Iterable[Trajectory], target: TextIO, *, allow_off_policy: bool) -> ExportReport:
        """Write rows; leave out what cannot be trained on, and say why."""
        rows = 0
        left_out: Counter[str] = Counter()
        for trajectory in trajectories:
            reason = _unfit(trajectory, allow_off_policy=allow_off_policy)
            if reason is not None:
                left_out[reason] += 1
                continue
            for number, segment in enumerate(trajectory.segments):
                row = {
                    "task_id": trajectory.task_id,
                    "sample_index": trajectory.sample_index,
                    "segment": number,
                    "ids": segment.ids,
                    "mask": segment.mask,
                    "logprobs": segment.logprobs,
                    "reward": trajectory.reward,
                }
                target.write(json.dumps(row, separators=(",", ":")) + "\n")
                rows += 1
        return ExportReport(rows, left_out)


def _unfit(trajectory: Trajectory, *, allow_off_policy: bool) -> str | None:
    """Why a trajectory cannot be trained on, or None."""
    if trajectory.reward is None:
        return "no reward"
    if not trajectory.segments:
        return "the model returns no tokens"
    if allow_off_policy:
        return None
    turns = [step.tokens for step in trajectory.steps if step.tokens is not None]
    if any(turn.constrained for turn in turns):
        return "decoding was constrained (--allow-off-policy takes it all the same)"
    if any(turn.logprobs_mode != "processed" for turn in turns):
        return "logprobs are not those of the sampling distribution (--allow-off-policy takes it all the same)"
    return None


ROWS = RowExporter()

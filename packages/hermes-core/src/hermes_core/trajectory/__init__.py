"""Trajectories: what happened, token by token, ready to train on."""

from hermes_core.trajectory._codec import message_from_dict, to_dict, trajectory_from_dict
from hermes_core.trajectory._index import TrajectoryIndex
from hermes_core.trajectory._reader import read_trajectories
from hermes_core.trajectory._recorder import SegmentRecorder, turns_to_segments
from hermes_core.trajectory._types import (
    AGENT_OUTCOMES,
    INFRASTRUCTURE_OUTCOMES,
    Outcome,
    Segment,
    Step,
    Trajectory,
    TurnSpan,
)
from hermes_core.trajectory._writer import TrajectoryWriter

__all__ = [
    "AGENT_OUTCOMES",
    "INFRASTRUCTURE_OUTCOMES",
    "Outcome",
    "Segment",
    "SegmentRecorder",
    "Step",
    "Trajectory",
    "TrajectoryIndex",
    "TrajectoryWriter",
    "TurnSpan",
    "message_from_dict",
    "read_trajectories",
    "to_dict",
    "trajectory_from_dict",
    "turns_to_segments",
]

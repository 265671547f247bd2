"""What the cluster says of one allocation and of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from hermes_backend_nomad._sandbox_job import PORT, TASK

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Allocation", "Evaluation", "TaskEvent"]

ENDED = frozenset(("complete", "failed", "lost"))


class TaskEvent(NamedTuple):
    """Something that happened to the daemon's task."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where a sandbox was placed, and how it is.

    Attributes:
        id: Its identity.
        job_id: Of the sandbox's job.
        index: Of the cluster's state that this shows.
        node: Name of the node.
        node_id: Its identity.
        status: `pending`, `running`, `complete`, `failed`, `lost` or `unknown`, as its node said last.
        wanted: `run`, `stop` or `evict`.
        why: Why it is no longer wanted, or what the node says of it.
        moving: Whether it is to leave its node, since that is being drained.
        preempted: Whether it made room for a job of higher priority.
        events: What happened to its task, oldest first.
        endpoint: Host and port of the daemon, as soon as they are known.
    """

    id: str
    job_id: str
    index: int
    node: str
    node_id: str
    status: str
    wanted: str
    why: str
    moving: bool
    preempted: bool
    events: tuple[TaskEvent, ...]
    endpoint: tuple[str, int] | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """Read an allocation, or a line of a list of allocations, as the interface has it."""
        state = (said.get("TaskStates") or {}).get(TASK) or {}
        events = tuple(
            TaskEvent(event.get("Type") or "", event.get("DisplayMessage") or event.get("Message") or "")
            for event in state.get("Events") or ()
        )
        return cls(
            id=said["ID"],
            job_id=said["JobID"],
            index=said.get("ModifyIndex") or 0,
            node=said.get("NodeName") or (said.get("NodeID") or "")[:8],
            node_id=said.get("NodeID") or "",
            status=said.get("ClientStatus") or "pending",
            wanted=said.get("DesiredStatus") or "run",
            why=said.get("DesiredDescription") or said.get("ClientDescription") or "",
            moving=bool((said.get("DesiredTransition") or {}).get("Migrate")),
            preempted=bool(said.get("PreemptedByAllocation")),
            events=events,
            endpoint=_endpoint(said),
        )

    @property
    def over(self) -> bool:
        """Whether its processes are gone, as far as the cluster knows."""
        return self.status in ENDED

    @property
    def untouched(self) -> bool:
        """Whether its node has not begun with it, as far as the cluster knows."""
        return self.status == "pending" and self.wanted == "run" and not self.events

    @property
    def dying(self) -> str | None:
        """Why it is no more, or will soon be no more, in a few words; None while it lives."""
        if self.preempted:
            return "it was preempted by a job of higher priority"
        if self.moving and self.wanted != "run":
            return f"it has to leave its node {self.node}, which is drained, or it was stopped by hand"
        if self.status == "lost":
            return f"its node {self.node} is lost"
        if self.status in ("failed", "complete"):
            return self.last_words or f"it is {self.status}"
        if self.wanted != "run":
            return f"it was stopped: {self.why}" if self.why else "it was stopped"
        return None

    @property
    def last_words(self) -> str:
        """What the last telling events say."""
        telling = [event for event in self.events if event.kind in ("Terminated", "Driver Failure", "Killing")]
        return "; ".join(f"{event.kind}: {event.text}" if event.text else event.kind for event in telling[-2:])


def _endpoint(said: Mapping[str, Any]) -> tuple[str, int] | None:
    shared = (said.get("AllocatedResources") or {}).get("Shared") or {}
    for port in shared.get("Ports") or ():
        if port["Label"] == PORT:
            return port["HostIP"], port["Value"]
    return None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What became of the wish to place a sandbox.

    Attributes:
        id: Its identity.
        job_id: Of the sandbox's job.
        status: `pending`, `complete`, `blocked`, `failed` or `canceled`.
        why: What the scheduler says of it.
        refused: Why no node takes the group, as the scheduler's numbers; None if one does.
    """

    id: str
    job_id: str
    status: str
    why: str
    refused: Mapping[str, Any] | None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Self:
        """Read an evaluation as the interface has it."""
        failed = said.get("FailedTGAllocs") or {}
        return cls(
            id=said["ID"],
            job_id=said.get("JobID") or "",
            status=said.get("Status") or "pending",
            why=said.get("StatusDescription") or "",
            refused=next(iter(failed.values()), None),
        )

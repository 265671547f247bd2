"""Why a sandbox did not come up, in our words, with what is known to help."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hermes_core.exceptions import BackendUnavailableError, NoCapacityError, SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hermes_backend_nomad._allocation import Allocation, Evaluation
    from hermes_core.exceptions import HermesError

__all__ = [
    "broken_start",
    "last_lines",
    "refused_capability",
    "start_failure",
    "unplaced",
]

DRIVER_FAILURE = "Driver Failure"
FAILED_VALIDATION = "Failed Validation"
ARTIFACT_FAILURE = "Failed Artifact Download"
SETUP_FAILURE = "Setup Failure"
OTHERWISE = {
    DRIVER_FAILURE: "the log of the agent on that node says more",
    FAILED_VALIDATION: "see what -B job=FILE says of its task",
    ARTIFACT_FAILURE: "see that the nodes reach it: -B runtime=ADDRESS",
    SETUP_FAILURE: "the log of the agent on that node says more",
}
"""What keeps a task from ever running, and hints where nothing better is known."""
ENGINE_FAILED = 255
USELESS = {
    2: None,
    126: "see that the program is on the nodes, and may be run: -B executable=PATH",
    127: "see that the program is on the nodes: -B executable=PATH",
    ENGINE_FAILED: "see that the nodes have the image, and can run it: -B image=FILE.sif",
}
"""Statuses with which trying again is of no use, and hints: the daemon's own, the shell's, Apptainer's."""
OTHER_VERSION = "unrecognized arguments"
OTHER_VERSION_HINT = "the runtime is another version's; make it anew where nodes find it: hermes sandbox runtime build"
STATUS = re.compile(r"Exit Code: (\d+)")
ARGUMENTS = re.compile(r" --- args=\[.*\](?=:|$)", re.DOTALL)
"""The whole command, which a driver tells before what went wrong with it."""
LONGEST = 400
LINES = 3

NO_CAPABILITY = "does not allow the following capabilities"
NO_FRESH_PROC = "a fresh /proc cannot be mounted"

PORT_TAKEN = ("port is already allocated", "address already in use")
"""Somebody on the node, of whom Nomad does not know, has the port; the next sandbox gets another one."""

HINTS = (
    (
        NO_CAPABILITY,
        "let the operator add sys_admin to allow_caps of the docker plugin, or take weaker slots: -B isolation=user "
        "-B network=host",
    ),
    ("privileged", "let the operator allow privileged containers in the docker plugin, or leave out -B privileged"),
    (
        "volumes are not enabled",
        "let the operator enable volumes of the docker plugin, or use -B runtime=image:FOLDER",
    ),
    ("fork/exec /bin/sh", "let the nodes' users pass through the folder of their agent: chmod 711 DATA_DIR"),
    ("could not be found", "install it on the nodes, or name it: -B executable=PATH"),
    ("unknown user", "name a user of the nodes: -B user=NAME"),
    ("lib/loader", "see that the runtime folder is there, on the nodes or in the image: -B runtime=…"),
    ("mount source", "see that the nodes have what is to be mounted: -B binds, -B runtime=FOLDER"),
    ("source path does not exist", "see that the nodes have what is to be mounted: -B volumes, -B runtime=FOLDER"),
    ("no such file", "see that the paths of the settings are there on the nodes"),
    ("not found", "see that the nodes can have the image: -B image=TAG"),
    ("pull", "see that the nodes can have the image: -B image=TAG"),
    ("denied", "see that the nodes can have the image: -B image=TAG"),
)


def unplaced(evaluation: Evaluation, job: Mapping[str, Any]) -> HermesError:
    """Return the error for a sandbox that no node takes, by the scheduler's numbers.

    Args:
        evaluation: What became of it.
        job: As it was registered, in the form of Nomad's interface.
    """
    refused = evaluation.refused
    if refused is None:
        return NoCapacityError(f"Nomad did not place a sandbox: {evaluation.why or evaluation.status}")
    available = {name: number for name, number in (refused.get("NodesAvailable") or {}).items() if number}
    where = f"datacenter {','.join(job['Datacenters'])!r}" + (
        f", node pool {pool!r}" if (pool := job.get("NodePool")) else ""
    )
    exhausted = refused.get("DimensionExhausted") or {}
    filtered = refused.get("ConstraintFiltered") or {}
    if exhausted or refused.get("QuotaExhausted"):
        what = ", ".join([*_counted(exhausted), *(f"quota {name}" for name in refused.get("QuotaExhausted") or ())])
        return NoCapacityError(
            f"no node of {where} has room for a sandbox: exhausted is {what}",
            hint="ask for less (-B cpu=MHZ, -B memory=MB, -B disk=MB, fewer sandboxes), or wait until others end",
        )
    if filtered:
        return NoCapacityError(
            f"no node of {where} fits: {', '.join(_counted(filtered))}",
            hint=_constraint_hint(filtered),
        )
    if not available and not refused.get("NodesEvaluated"):
        return NoCapacityError(
            f"there is no node in {where} that takes work",
            hint="nomad node status shows them all; -B datacenter=NAME, -B node_pool=NAME",
        )
    return NoCapacityError(f"no node of {where} takes a sandbox: {evaluation.why or 'the scheduler gives no reason'}")


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [f"{what} on {number} node{'s' if number != 1 else ''}" for what, number in sorted(counts.items())]


def _constraint_hint(filtered: Iterable[str]) -> str:
    if any("missing drivers" in reason for reason in filtered):
        return "enable the driver, or use the other backend (nomad: Docker, nomad-singularity: raw_exec)"
    return "see the constraints of -B job=FILE, and nomad node status -verbose NODE"


def broken_start(allocation: Allocation) -> bool:
    """Whether it is known that a sandbox will not come up, even if its node tries again."""
    kinds = {event.kind for event in allocation.events}
    return allocation.over or allocation.wanted != "run" or not kinds.isdisjoint(OTHERWISE)


def last_lines(said: str) -> list[str]:
    """The last lines of what a task wrote that are not empty."""
    return [line.strip() for line in said.splitlines() if line.strip()][-LINES:]


def start_failure(allocation: Allocation, said: str) -> HermesError:
    """Return the error for a sandbox that was placed and did not come up.

    Args:
        allocation: What the cluster says of it.
        said: The end of what its task wrote to standard error.
    """
    lines = last_lines(said)
    told = " | ".join(line[:LONGEST] for line in lines)
    where = f"on node {allocation.node}"
    refusal = next((event for event in allocation.events if event.kind in OTHERWISE), None)
    if refusal is not None:
        text = " ".join(ARGUMENTS.sub("", refusal.text).split())[:LONGEST]
        message = f"a sandbox cannot be started {where}: {refusal.kind}: {text}"
        if any(said in text for said in PORT_TAKEN):
            return SandboxLostError(message)
        otherwise = OTHERWISE[refusal.kind]
        return BackendUnavailableError(
            message, hint=_hint(text, otherwise) if refusal.kind == DRIVER_FAILURE else otherwise
        )
    why = allocation.dying or f"it is {allocation.status}"
    message = f"a sandbox ended {where} before it answered: {why}{': ' + told if told else ''}"
    # What was told to end may end with any status.
    found = STATUS.search(allocation.last_words) if allocation.wanted == "run" else None
    status = int(found[1]) if found else None
    if status in USELESS:
        _, _, told_hint = (lines[-1] if lines else "").partition("; ")
        if OTHER_VERSION in told:
            told_hint = OTHER_VERSION_HINT
        known = _hint(told, USELESS[status]) if status == ENGINE_FAILED else USELESS[status]
        return BackendUnavailableError(message, hint=told_hint or known)
    return SandboxLostError(message)


def _hint(said: str, otherwise: str | None) -> str | None:
    """The hint for what a driver or an engine said."""
    return next((hint for known, hint in HINTS if known in said.lower()), otherwise)


def refused_capability(error: HermesError) -> bool:
    """Whether containers may not have what namespaces need."""
    return any(reason in error.message for reason in (NO_CAPABILITY, NO_FRESH_PROC))

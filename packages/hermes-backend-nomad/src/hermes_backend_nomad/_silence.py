"""Nodes that do not answer, noticed before the cluster calls them down: with a new leader that takes it minutes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import anyio

from hermes_core.exceptions import SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hermes_backend_nomad._allocation import Allocation
    from hermes_backend_nomad._changes import Watch

__all__ = ["BEGIN_S", "SilentNodeError", "SilentNodes", "avoiding", "begun"]

BEGIN_S = 15.0
"""A node that lives says within a second that it has got an allocation, and within some more if it is very busy."""
AVOIDED_S = 300.0
"""By then the cluster knows by itself."""

_logger = logging.getLogger(__name__)


class SilentNodeError(SandboxLostError):
    """A sandbox was placed on a node that does not begin with it."""


class SilentNodes:
    """Remembers which nodes do not do as they are told."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, allocation: Allocation) -> None:
        """Its node did not do what was wanted of it."""
        if allocation.node_id not in self.now():
            _logger.warning("node %s does not answer, and is avoided for now", allocation.node)
        self._until[allocation.node_id] = anyio.current_time() + AVOIDED_S

    def answered(self, allocation: Allocation) -> None:
        """Its node has done it."""
        self._until.pop(allocation.node_id, None)

    def now(self) -> frozenset[str]:
        """Return the identities of those that are to be avoided."""
        now = anyio.current_time()
        self._until = {node: until for node, until in self._until.items() if until > now}
        return frozenset(self._until)


def avoiding(job: dict[str, Any], nodes: Iterable[str]) -> dict[str, Any]:
    """Return a job that is not placed on some nodes.

    Args:
        job: In the form of Nomad's interface.
        nodes: Their identities.
    """
    constraints = [{"LTarget": "${node.unique.id}", "RTarget": node, "Operand": "!="} for node in sorted(nodes)]
    return {**job, "Constraints": [*(job.get("Constraints") or ()), *constraints]} if constraints else job


async def begun(watch: Watch, silent: SilentNodes) -> None:
    """Wait until the node of a job that was placed has begun with it.

    Raises:
        SilentNodeError: It has not, and is noted.
    """
    with anyio.move_on_after(BEGIN_S):
        while watch.allocation is not None and watch.allocation.untouched:
            await watch.change()
    allocation = watch.allocation
    if allocation is None:
        return
    if not allocation.untouched:
        silent.answered(allocation)
        return
    silent.note(allocation)
    raise SilentNodeError(
        f"node {allocation.node} did not begin with a sandbox within {BEGIN_S:g} s, and may be lost",
        hint="nomad node status shows what the cluster believes; see whether the agent on that machine lives",
    )

"""Warm sandboxes: those that earlier runs left on purpose, and how a run takes one over."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_backend_nomad._allocation import Allocation
from hermes_backend_nomad._belongings import remove_job, survey
from hermes_backend_nomad._sandbox_job import META_KEPT, variable_of
from hermes_backend_nomad._secrets import SandboxSecrets
from hermes_core.exceptions import HermesError

if TYPE_CHECKING:
    from hermes_backend_nomad._cluster import Cluster
    from hermes_backend_nomad._holders import Holder

__all__ = ["Taken", "fingerprint", "marked", "purge_warm", "take_over"]

_logger = logging.getLogger(__name__)


def fingerprint(job: dict[str, Any], slots: int, identity: str) -> str:
    """Return what tells sandboxes of the same settings from others: everything about their jobs but names.

    Args:
        job: In the form of Nomad's interface.
        slots: How many it hosts.
        identity: What its image is, where that is known.
    """
    said = {name: value for name, value in job.items() if name not in ("ID", "Name", "Meta")}
    text = json.dumps([said, slots, identity], sort_keys=True).replace(job["ID"], "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def marked(job: dict[str, Any], print_: str) -> dict[str, Any]:
    """Return a job that says that it stays for others, and for whom."""
    return job | {"Meta": {**job["Meta"], META_KEPT: print_}}


@dataclass(frozen=True, slots=True)
class Taken:
    """A warm sandbox that was taken.

    Attributes:
        job_id: Its job.
        secrets: Its secrets, which say that it is taken.
        before: Who had it before; empty if nobody did.
        allocation: Where it is.
    """

    job_id: str
    secrets: SandboxSecrets
    before: str
    allocation: Allocation


async def take_over(cluster: Cluster, prefix: str, kept: str, holder: Holder) -> Taken | None:
    """Take a warm sandbox that nobody has.

    Args:
        cluster: Where to look.
        prefix: What the names of jobs begin with.
        kept: The fingerprint of the settings.
        holder: Who takes it.

    Returns:
        None if there is none.
    """
    for each in await survey(cluster, prefix, holder.now):
        if each.kept != kept or not each.running:
            continue
        secrets = await SandboxSecrets.read(cluster, variable_of(each.job_id))
        if secrets is None or await holder.lives(secrets.holder):
            continue
        mine = await secrets.taken_by(holder.name, cluster)
        if mine is None:
            continue
        allocation = await _allocation(cluster, each.job_id)
        if allocation is not None:
            return Taken(each.job_id, mine, secrets.holder, allocation)
        await remove_job(cluster, each.job_id)
    return None


async def purge_warm(cluster: Cluster, prefix: str, holder: Holder) -> None:
    """End the warm sandboxes that nobody has.

    Args:
        cluster: Where they are.
        prefix: What the names of jobs begin with.
        holder: Who takes them, so that nobody else does meanwhile.
    """
    for each in await survey(cluster, prefix, holder.now):
        if not each.kept:
            continue
        secrets = await SandboxSecrets.read(cluster, variable_of(each.job_id))
        if secrets is not None and (
            await holder.lives(secrets.holder) or await secrets.taken_by(holder.name, cluster) is None
        ):
            continue
        try:
            await remove_job(cluster, each.job_id)
        except HermesError as error:
            _logger.warning("the warm sandbox %s is left: %s", each.job_id, error.message)


async def _allocation(cluster: Cluster, job_id: str) -> Allocation | None:
    lines = (await cluster.get("job", job_id, "allocations", what="list a job's allocations")).content
    for line in lines:
        if line["ClientStatus"] == "running" and line["DesiredStatus"] == "run":
            return Allocation.of((await cluster.get("allocation", line["ID"], what="look at an allocation")).content)
    return None

"""The sandboxes that there are on a cluster, whose they are, and what is swept of them."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_backend_nomad._errors import ConflictError
from hermes_backend_nomad._holders import read_leases
from hermes_backend_nomad._sandbox_job import META_HOLDER, META_KEPT, META_NAME, META_OWNER, META_POOL, variable_of
from hermes_core.exceptions import HermesError
from hermes_core.sandbox import SandboxInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_backend_nomad._cluster import Cluster
    from hermes_backend_nomad._holders import Holder
    from hermes_core.sandbox import SandboxState

__all__ = ["Belonging", "remove_job", "survey", "sweep"]

YOUNG_S = 120.0
"""A variable is written before its job: one that is older than this, and has none, is left over."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Belonging:
    """One sandbox's job.

    Attributes:
        job_id: Its name.
        kept: What its settings were, if it stays for other runs.
        running: Whether it runs, or waits to.
        info: What `list` tells of it.
    """

    job_id: str
    kept: str
    running: bool
    info: SandboxInfo


async def survey(cluster: Cluster, prefix: str, now: float | None = None) -> list[Belonging]:
    """Return the sandboxes of everyone with the same `sandbox_job_id`.

    Args:
        cluster: Where they are.
        prefix: What the names of their jobs begin with.
        now: The time, as of a holder; None for that of the agent, which is good enough for looking.
    """
    answer = await cluster.get("jobs", what="list jobs", params={"prefix": prefix, "meta": "true"})
    # Only now: a holder has a lease before it has a job, so that no living one is missing.
    living = (await read_leases(cluster, now)).living
    pool = prefix.removesuffix("-")
    return [
        _belonging(job, living, answer.at) for job in answer.content if (job.get("Meta") or {}).get(META_POOL) == pool
    ]


def _belonging(job: Mapping[str, Any], living: frozenset[str], now: float) -> Belonging:
    meta, status = job["Meta"], job["Status"]
    kept, running = meta.get(META_KEPT, ""), status != "dead"
    state: SandboxState = "left behind"
    if meta.get(META_HOLDER) in living or (kept and running):
        state = "starting" if status == "pending" else "running"
    age_s = max(0.0, now - job["SubmitTime"] / 1e9) if job.get("SubmitTime") else None
    return Belonging(
        job["ID"], kept, running, SandboxInfo(meta.get(META_NAME, job["ID"]), meta.get(META_OWNER, ""), state, age_s)
    )


async def remove_job(cluster: Cluster, job_id: str, until: float = math.inf) -> None:
    """End a job and all that runs in it, forget it, and delete its secrets.

    Args:
        cluster: Where it is.
        job_id: Its name.
        until: Time on the event loop's clock when it is over in any case.
    """
    await cluster.delete("job", job_id, what=f"end the job {job_id}", params={"purge": "true"}, until=until)
    await cluster.delete("var", variable_of(job_id), what=f"delete the variable of the job {job_id}", until=until)


async def sweep(cluster: Cluster, prefix: str, owner: str | None, holder: Holder) -> list[SandboxInfo]:
    """Remove what dead holders left, and return it; never what a living one has, or may be starting.

    Args:
        cluster: Where it is.
        prefix: What the names of jobs begin with.
        owner: Whose; None for everyone's.
        holder: Who sweeps; has renewed its lease.
    """
    removed = []
    found = await survey(cluster, prefix, holder.now)
    for each in found:
        if each.info.state == "left behind" and owner in (None, each.info.owner):
            try:
                await remove_job(cluster, each.job_id)
            except HermesError as error:
                _logger.warning("the job %s is left: %s", each.job_id, error.message)
            else:
                removed.append(each.info)
    if owner is None:
        await _sweep_variables(cluster, prefix, holder)
    return removed


async def _sweep_variables(cluster: Cluster, prefix: str, holder: Holder) -> None:
    """Delete variables without a job, and leases that ran out."""
    variables = await cluster.get("vars", what="list variables", params={"prefix": variable_of(prefix)})
    old = [each["Path"] for each in variables.content or () if holder.now - each["ModifyTime"] / 1e9 > YOUNG_S]
    if old:
        jobs = await cluster.get("jobs", what="list jobs", params={"prefix": prefix})
        there = {job["ID"] for job in jobs.content}
        for path in old:
            if path.removeprefix(variable_of("")) not in there:
                await cluster.delete("var", path, what=f"delete the variable {path}")
    for path, index in (await read_leases(cluster, holder.now)).run_out.items():
        with suppress(ConflictError):  # it was renewed after all
            await cluster.delete("var", path, what="delete a lease", params={"cas": index})

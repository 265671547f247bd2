"""Writes the jobs of sandboxes: the driver's own, with what the user says merged in."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from hermes_backend_nomad._job import api_form
from hermes_backend_nomad._merging import merge_job, read_job
from hermes_backend_nomad._sandbox_job import SandboxPlan
from hermes_backend_nomad._warm import fingerprint, marked

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._config import ClusterSettings
    from hermes_backend_nomad._job import Job
    from hermes_core.sandbox import SandboxSpec

__all__ = ["JobRenderer", "plan_of"]

LONGEST_NAME = 100
UNFIT = re.compile(r"[^A-Za-z0-9._-]")


def plan_of(spec: SandboxSpec, owner: str, name: str, *, prefix: str, holder: str, isolation: str) -> SandboxPlan:
    """Return the plan of a sandbox, whose job has a name that no other has.

    Args:
        spec: What it is made of.
        owner: Whose it is.
        name: Unique among the owner's sandboxes.
        prefix: What the names of all jobs begin with.
        holder: Whose lease it lives by.
        isolation: Level that its daemon is asked for.
    """
    job_id = f"{prefix}{UNFIT.sub('-', name)[:LONGEST_NAME]}-{uuid.uuid4().hex[:8]}"
    return SandboxPlan(job_id, owner, name, spec.slots, holder, spec.image, isolation)


class JobRenderer:
    """Renders plans as Nomad's interface takes them.

    Args:
        settings: Those of the backend.
        driver_job: Returns the job of a plan, as a driver has it.
        identity: What the image of its jobs is, where its name does not tell; empty if nobody knows.
    """

    def __init__(self, settings: ClusterSettings, driver_job: Callable[[SandboxPlan], Job], identity: str) -> None:
        self._settings = settings
        self._identity = identity
        self._driver_job = driver_job
        self._users: dict[str, Any] | None = None

    async def read_users(self, address: Address) -> None:
        """Read the user's own specification, if there is one.

        Args:
            address: Of the agent that translates HCL.

        Raises:
            ConfigError: It cannot be read.
        """
        if self._settings.job is not None:
            self._users = await read_job(self._settings.job.expanduser(), address)

    def render(self, plan: SandboxPlan) -> dict[str, Any]:
        """Return the job of a plan; one that stays for other runs says what its settings are.

        Raises:
            ConfigError: The user's own specification says what no sandbox can be.
        """
        job = self._merged(plan)
        return (
            job if self._settings.purge_job_on_shutdown else marked(job, fingerprint(job, plan.slots, self._identity))
        )

    def fingerprint(self, plan: SandboxPlan) -> str:
        """Return what the plan has in common with those of the same settings."""
        return fingerprint(self._merged(plan), plan.slots, self._identity)

    def _merged(self, plan: SandboxPlan) -> dict[str, Any]:
        job = api_form(self._driver_job(plan))
        if self._users is None:
            return job
        return merge_job(job, self._users, tasks_image=plan.image)

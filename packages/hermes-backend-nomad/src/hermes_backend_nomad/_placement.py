"""Has a sandbox's job placed, and waits until its daemon answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hermes_backend_nomad._allocation import Evaluation
from hermes_backend_nomad._errors import NotFoundError
from hermes_backend_nomad._failures import broken_start, start_failure, unplaced
from hermes_backend_nomad._sandbox_job import TASK
from hermes_backend_nomad._silence import begun
from hermes_core.concurrency import background_tasks
from hermes_core.exceptions import HermesError, SandboxLostError
from hermes_core.sandbox import greet

if TYPE_CHECKING:
    from hermes_backend_nomad._allocation import Allocation
    from hermes_backend_nomad._changes import Watch
    from hermes_backend_nomad._cluster import Cluster
    from hermes_backend_nomad._sandbox import NomadSandbox
    from hermes_backend_nomad._silence import SilentNodes
    from hermes_core.sandbox import SandboxFacts

__all__ = ["answering", "place"]


async def place(cluster: Cluster, watch: Watch, silent: SilentNodes, job: dict[str, Any]) -> None:
    """Register a job and wait until its allocation runs.

    Args:
        cluster: Where.
        watch: Of the job, from before it is registered.
        silent: Nodes that do not answer; another may be found.
        job: In the form of Nomad's interface.

    Raises:
        NoCapacityError: No node takes it.
        BackendUnavailableError: It cannot be started there at all.
        SandboxLostError: It ended at once, or its node does not begin with it.
    """
    answer = await cluster.put("jobs", what=f"register the job {watch.job_id}", content={"Job": job})
    watch.awaited = answer.content["EvalID"]
    await _catch_up(cluster, watch, watch.awaited)
    while True:
        allocation = watch.allocation
        if allocation is not None:
            await begun(watch, silent)
            allocation = watch.allocation or allocation
            if broken_start(allocation):
                raise await _failure(cluster, allocation)
            if allocation.status == "running" and allocation.endpoint is not None:
                return
        elif (evaluation := watch.evaluation) is not None and (
            evaluation.refused is not None or evaluation.status != "complete"
        ):
            raise unplaced(evaluation, job)
        await watch.change()


async def _catch_up(cluster: Cluster, watch: Watch, evaluation: str) -> None:
    """Look whether it was decided while the event stream was opened again, and nobody knew yet what is awaited."""
    try:
        found = Evaluation.of((await cluster.get("evaluation", evaluation, what="look at an evaluation")).content)
    except NotFoundError:
        return
    if found.status != "pending":  # which may be old already
        watch.take(found)


async def answering(cluster: Cluster, watch: Watch, sandbox: NomadSandbox) -> SandboxFacts:
    """Wait until the daemon answers, and return what it says of itself.

    Raises:
        SandboxLostError: It ended instead.
        BackendUnavailableError: It cannot work there.
    """

    async def give_up_when_broken() -> None:
        # Somebody else may listen at the port, who never answers.
        while watch.allocation is None or not broken_start(watch.allocation):
            await watch.change()
        tasks.cancel_scope.cancel()

    failure: HermesError | None = None
    try:
        async with background_tasks() as tasks:
            tasks.start_soon(give_up_when_broken)
            return await greet(sandbox, reconnect_s=math.inf)  # it is about to listen, or to say why it does not
    except HermesError as error:
        failure = error
    allocation = watch.allocation
    if (
        allocation is not None
        and broken_start(allocation)
        and (failure is None or isinstance(failure, SandboxLostError))
    ):
        raise await _failure(cluster, allocation)
    assert failure is not None
    raise failure


async def _failure(cluster: Cluster, allocation: Allocation) -> HermesError:
    return start_failure(allocation, await cluster.standard_error(allocation.id, TASK))

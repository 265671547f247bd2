"""Makes a run and writes it down."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from hermes_core.observers import RunFinished, RunStarted
from hermes_core.runs._run import Run
from hermes_core.runs._toolsets import enabled_tools
from hermes_core.trajectory import AGENT_OUTCOMES, TrajectoryWriter

if TYPE_CHECKING:
    from hermes_core.runs._directory import RunDirectory
    from hermes_core.runs._resources import Resources
    from hermes_core.runs._work import Work
    from hermes_core.trajectory import Trajectory

__all__ = ["execute_run"]


async def execute_run(resources: Resources, work: Work, directory: RunDirectory) -> Run:
    """Make the rollouts that are missing in a run's folder, and write down each as it ends.

    A trajectory is done when it is durable. Cancelled at any moment, what was done stays, `statistics.json` says how
    far it came, and the same call on the reopened folder does the rest.

    Args:
        resources: What rollouts share.
        work: Which rollouts to make.
        directory: The run's open folder.

    Returns:
        The run: its statistics, and readers over its files.

    Raises:
        UsageError: The run cannot be made at all.
        BackendUnavailableError: No sandbox can be started, and none was.
        NoCapacityError: There is no room for a sandbox, and there was none.
        EnvironmentFault: The environment has no next task.
    """
    enabled_tools(resources.tools, work.environment, None, work.options.toolsets)
    config, tally = directory.config, directory.tally
    total = None if work.tasks is None else work.tasks * work.group_size
    resources.observers.post(RunStarted(config.run_id, config.model_dump(mode="json"), total, tally.trajectories))
    tally.start()
    started = time.monotonic()
    complete = False
    try:
        async with TrajectoryWriter(directory.finished) as finished, TrajectoryWriter(directory.failed) as failed:

            async def write(trajectory: Trajectory) -> None:
                writer = finished if trajectory.outcome in AGENT_OUTCOMES else failed
                # Counted first: from here on the writer has it, and writes it even if this is cancelled.
                tally.add(trajectory)
                await writer.append(trajectory)

            complete = await work.do(resources, write, is_done=directory.is_done, taken=directory.forget)
    finally:
        elapsed_s = time.monotonic() - started
        statistics = tally.statistics(elapsed_s=elapsed_s, earlier_s=directory.earlier_s, complete=complete)
        directory.write_statistics(statistics)
        resources.observers.post(RunFinished(config.run_id, statistics.to_dict()))
    return Run(directory.path, statistics)

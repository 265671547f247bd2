"""Trajectories as they end, for whoever iterates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import LeaseStateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

    from hermes_core.runs._resources import Resources
    from hermes_core.runs._work import Work
    from hermes_core.trajectory import Trajectory

__all__ = ["stream_rollouts"]


async def stream_rollouts(tasks: TaskGroup, resources: Resources, work: Work) -> AsyncGenerator[Trajectory, None]:
    """Yield trajectories in the order in which they end; what infrastructure spoiled has no reward.

    An async generator must not yield inside a task group or cancel scope: whoever stops iterating early would leave
    them open in a foreign task. So the workers live in a task group of the caller, and this generator only holds the
    end of a stream. Its clean-up does not wait for anything, so that it is right wherever it runs: by `aclose`, by
    cancellation, or by the event loop's hook after a `break`. The workers then give their slots back in their own task.

    At most `concurrency` finished trajectories wait to be taken.

    Args:
        tasks: Lives longer than the generator.
        resources: What rollouts share.
        work: Which rollouts to make.

    Raises:
        UsageError: A rollout cannot be done at all.
        BackendUnavailableError: No sandbox can be started, and none was.
        NoCapacityError: There is no room for a sandbox, and there was none.
        EnvironmentFault: The environment has no next task.
        LeaseStateError: The task group ended first.
    """
    send, receive = anyio.create_memory_object_stream["Trajectory"](0)
    scope = anyio.CancelScope()
    ended: list[Exception | None] = []

    async def produce() -> None:
        with send, scope:
            try:
                await work.do(resources, send.send)
                ended.append(None)
            except Exception as error:
                ended.append(error)

    tasks.start_soon(produce)
    try:
        async for trajectory in receive:
            yield trajectory
    finally:
        scope.cancel()
        receive.close()
        # A worker task that never came to run has not closed its end.
        send.close()
    if not ended:
        raise LeaseStateError("the stream's owner was closed before the stream came to its end")
    if ended[0] is not None:
        raise ended[0]

"""Many rollouts at once, tasks pulled as they are needed."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import EnvironmentFault, HermesError
from hermes_core.runs._rollout import rollout_with_retries
from hermes_core.runs._scoring import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from anyio.abc import ObjectReceiveStream, ObjectSendStream

    from hermes_core.environments import Environment, Split, Task
    from hermes_core.models import Model
    from hermes_core.runs._resources import Resources, RolloutOptions
    from hermes_core.trajectory import Trajectory

__all__ = ["Work"]

_Job = tuple["Task", int]


@dataclass(frozen=True, slots=True)
class Work:
    """Which rollouts to make.

    Attributes:
        environment: Where tasks come from.
        model: Who works on them, entered.
        tasks: Most tasks to take; None takes what the environment has, which may be endless.
        group_size: Trajectories of each task.
        concurrency: Most of them at work at once.
        split: The environment's split.
        seed: Fixes the order of tasks.
        options: What the run decides for every rollout.
        run_id: Part of each trajectory's id.
        limit: Most trajectories to make now; None makes them all.
    """

    environment: Environment
    model: Model
    tasks: int | None
    group_size: int
    concurrency: int
    split: Split
    seed: int
    options: RolloutOptions
    run_id: str
    limit: int | None = None

    async def do(
        self,
        resources: Resources,
        finished: Callable[[Trajectory], Awaitable[None]],
        *,
        is_done: Callable[[str, int], bool] = lambda task_id, sample_index: False,
        taken: Callable[[str], None] = lambda task_id: None,
    ) -> bool:
        """Make the rollouts, and hand each trajectory over in the order in which they end.

        Args:
            resources: What rollouts share.
            finished: Takes a trajectory; a worker goes on when it returns, so that it bounds what is in memory.
            is_done: Whether a trajectory is not wanted any more.
            taken: Told of a task when all its jobs are given out.

        Returns:
            Whether everything was tried; False when `limit` ended it.

        Raises:
            UsageError: A rollout cannot be done at all; the others are stopped.
            BackendUnavailableError: No sandbox can be started, and none was.
            NoCapacityError: There is no room for a sandbox, and there was none.
            EnvironmentFault: The environment has no next task; what was begun is finished first.
        """
        stopped_by: list[Exception] = []
        send, receive = anyio.create_memory_object_stream[_Job](0)
        wanted = self.concurrency if self.tasks is None else self.tasks * self.group_size
        workers = min(self.concurrency, wanted, self.concurrency if self.limit is None else self.limit)
        async with anyio.create_task_group() as tasks:

            async def work(jobs: ObjectReceiveStream[_Job]) -> None:
                try:
                    async with jobs:
                        async for task, sample_index in jobs:
                            await finished(await self._roll_out(resources, task, sample_index))
                except Exception as error:
                    # Kept apart from the task group, which would wrap it into an exception group.
                    stopped_by.append(error)
                    tasks.cancel_scope.cancel()

            with receive:
                for _ in range(max(1, workers)):
                    tasks.start_soon(work, receive.clone())
            try:
                all_given = await self._give_out(send, is_done, taken)
            except HermesError as error:
                stopped_by.append(error)
        if stopped_by:
            raise stopped_by[-1]
        return all_given

    async def _roll_out(self, resources: Resources, task: Task, sample_index: int) -> Trajectory:
        return await rollout_with_retries(
            resources,
            self.environment,
            task,
            self.model,
            sample_index=sample_index,
            options=self.options,
            run_id=self.run_id,
        )

    async def _give_out(
        self,
        jobs: ObjectSendStream[_Job],
        is_done: Callable[[str, int], bool],
        taken: Callable[[str], None],
    ) -> bool:
        given = 0
        async with jobs, aclosing(self._tasks()) as tasks:
            async for task in tasks:
                for sample_index in range(self.group_size):
                    if is_done(task.task_id, sample_index):
                        continue
                    if given == self.limit:
                        return False
                    await jobs.send((task, sample_index))
                    given += 1
                taken(task.task_id)
        return True

    async def _tasks(self) -> AsyncGenerator[Task, None]:
        if self.tasks == 0:
            return
        source = self.environment.tasks(self.split, self.seed)
        try:
            count = 0
            async for task in source:
                yield task
                count += 1
                if count == self.tasks:
                    return
        except HermesError:
            raise
        except Exception as error:
            raise EnvironmentFault(
                f"environment {self.environment.name!r} has no next task: {one_line(error)}"
            ) from error
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()

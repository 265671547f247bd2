"""`Hermes`: everything that embeds the SDK goes through here."""

from __future__ import annotations

import uuid
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hermes_core._catalogue import Catalogue
from hermes_core._engine import started_engine
from hermes_core._profiles import resolve_profile
from hermes_core.agent import Agent, LazyConversation
from hermes_core.config import load_settings
from hermes_core.exceptions import UsageError
from hermes_core.execution import CallRequest, Slot, advertised
from hermes_core.models import ConversationStart, Sampling
from hermes_core.plugins import create_plugin_manager
from hermes_core.runs import (
    Leasing,
    Resources,
    RunDirectory,
    Work,
    default_directory,
    describe_run,
    execute_run,
    rollout_options,
    rollout_with_retries,
    stream_rollouts,
)
from hermes_core.slots import LeaseRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
    from types import TracebackType

    from hermes_core._engine import Engine
    from hermes_core.agent import AgentLimits
    from hermes_core.config import Settings
    from hermes_core.environments import Environment, Split, Task
    from hermes_core.execution import ExecutorStatus, ToolCall, ToolResult
    from hermes_core.models import Conversation, Model
    from hermes_core.observers import Interceptor, Observer
    from hermes_core.plugins import PluginManager
    from hermes_core.runs import Run
    from hermes_core.sandbox import LimitValue, NetworkPolicy, SandboxBackend
    from hermes_core.slots import PoolStatus
    from hermes_core.toolsets import Toolset
    from hermes_core.trajectory import Trajectory

__all__ = ["Hermes"]


class Hermes:
    """Leases slots, calls tools, runs agents and environments. An async context manager; works under asyncio and trio.

        async with Hermes(backend="local", toolsets=["terminal"]) as hermes:
            async with hermes.lease() as slot:
                done = await slot.exec("echo hi")

    Args:
        backend: Name or instance of the sandbox backend; None for none.
        backend_config: Fields of its configuration, when given by name. `slots_per_sandbox` and `max_sandboxes` size
            the pool.
        toolsets: Toolsets whose tools `slot.call`, `call_many` and `agent` know, by name or as instances.
        settings: What holds for every run; by default read from file and environment (`hermes_core.config`).
        plugins: Where names are looked up; by default all installed plugins.
        observers: Who watches, besides those that the settings name.

    Raises:
        UnknownNameError: A name is not registered.
        ConfigError: A setting is unknown or malformed.
        BackendUnavailableError: On entering: the backend cannot work here.
    """

    def __init__(
        self,
        backend: str | SandboxBackend | None = "local",
        *,
        backend_config: Mapping[str, object] | None = None,
        toolsets: Sequence[str | Toolset] = ("default",),
        settings: Settings | None = None,
        plugins: PluginManager | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        self._settings = settings or load_settings()
        self._catalogue = Catalogue(
            plugins or create_plugin_manager(),
            toolsets=[toolset for toolset in toolsets if not isinstance(toolset, str)],
            disabled_toolsets=self._settings.disabled_toolsets,
        )
        self._backend = self._catalogue.backend(backend, backend_config or {}) if isinstance(backend, str) else backend
        names = [toolset if isinstance(toolset, str) else toolset.name for toolset in toolsets]
        self._tools = self._catalogue.tools(names)
        watching = (
            *observers,
            *(self._catalogue.load("observer", name)() for name in self._settings.observers),
        )
        self._interceptors: tuple[Interceptor, ...] = tuple(
            self._catalogue.load("interceptor", name)() for name in self._settings.interceptors
        )
        self._started = started_engine(self._catalogue, self._settings, self._backend, watching)
        self._engine: Engine | None = None
        self._leasing = Leasing()
        self._entered = False

    async def __aenter__(self) -> Self:
        """Get the backend ready; sandboxes and models start when they are first needed."""
        if self._entered:
            raise UsageError("this Hermes was entered before", hint="make a new one")
        self._entered = True
        self._engine = await self._started.__aenter__()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything, whatever is still leased or running."""
        self._engine = None
        await self._started.__aexit__(exc_type, exc, traceback)

    # Slots

    @asynccontextmanager
    async def lease(
        self,
        profile: str | None = None,
        *,
        image: str | None = None,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        trajectory_id: str | None = None,
        wait_s: float | None = 30.0,
        limits: Mapping[str, LimitValue] | None = None,
    ) -> AsyncIterator[Slot]:
        """Lease a slot; it is reset and given back on exit, whatever happens.

        Args:
            profile: Name of a sandbox profile of the settings.
            image: Image of the sandbox, where the backend has any.
            network: `none`, or `host` for the network of the sandbox.
            env: Variables of every command.
            trajectory_id: Whose slot it is; a trajectory has at most one.
            wait_s: Seconds to wait for a free slot; None waits for ever.
            limits: Limits of the slot that differ from the backend's (docs/reference/protocol.md).

        Raises:
            LeaseTimeoutError: No slot became free in time.
            BackendUnavailableError: The backend cannot start sandboxes here.
            NoCapacityError: There is no room for a sandbox where they run.
            SandboxLostError: Sandboxes do not come up.
        """
        slot = await self.acquire(
            profile, image=image, network=network, env=env, trajectory_id=trajectory_id, wait_s=wait_s, limits=limits
        )
        try:
            yield slot
        finally:
            await slot.release()

    async def acquire(
        self,
        profile: str | None = None,
        *,
        image: str | None = None,
        network: NetworkPolicy = "none",
        env: Mapping[str, str] | None = None,
        trajectory_id: str | None = None,
        wait_s: float | None = 30.0,
        limits: Mapping[str, LimitValue] | None = None,
    ) -> Slot:
        """Lease a slot until `await slot.release()`, which any task may call; arguments and errors as for `lease`."""
        return await self._acquire(
            LeaseRequest(profile, image, network, env or {}, trajectory_id, wait_s, limits=limits or {})
        )

    async def call_many(self, calls: Iterable[tuple[Slot | None, ToolCall]]) -> list[ToolResult]:
        """Run tool calls of many slots at once and return their results in order.

        Calls of one slot run one after the other; a call without a slot reaches external tools only.

        Raises:
            SandboxError: The sandbox of a slot is lost.
            SlotDeadError: A slot died.
        """
        return await self._running.executor.execute(
            [
                CallRequest(call, self._tools, slot, trajectory_id=slot.trajectory_id if slot else None)
                for slot, call in calls
            ]
        )

    def pool_status(self) -> PoolStatus | None:
        """Counts of the slot pool; None without a backend."""
        return self._engine.pool.status() if self._engine and self._engine.pool else None

    def executor_status(self) -> ExecutorStatus:
        """Counts of the batch executor."""
        return self._running.executor.status()

    # Agents and environments

    def agent(
        self,
        model: str | Model,
        *,
        toolsets: Sequence[str] | None = None,
        system_prompt: str | None = None,
        slot: Slot | None = None,
        limits: AgentLimits | None = None,
        sampling: Sampling | None = None,
        model_config: Mapping[str, object] | None = None,
    ) -> Agent:
        """Make an agent: `await agent.chat(text)`, `agent.run(messages)`, `agent.step()`.

        Args:
            model: Name or instance; started by the first turn.
            toolsets: Its toolsets; those of this `Hermes` when not given.
            system_prompt: Opens the conversation.
            slot: The slot of its sandbox tools; when not given, one is leased by the first call of such a tool and
                given back when this `Hermes` is left.
            limits: When to stop.
            sampling: How to sample.
            model_config: Fields of the model's configuration, when given by name.
        """
        tools = self._tools if toolsets is None else self._catalogue.tools(toolsets)
        own_id = f"agent-{_new_id()}"
        start = ConversationStart(own_id, tools=advertised(tools), sampling=sampling or Sampling())

        async def converse() -> Conversation:
            started = await self._running.models.get(model, model_config)
            return started.conversation(start)

        return Agent(
            LazyConversation(converse),
            self._running.executor,
            tools,
            slot=slot or (self.acquire if self._running.pool is not None else None),
            limits=limits,
            system_prompt=system_prompt,
            interceptors=self._interceptors,
            observers=self._running.observers,
            trajectory_id=own_id,
        )

    async def run(
        self,
        environment: str | Environment,
        *,
        model: str | Model,
        tasks: int | None = None,
        group_size: int = 1,
        concurrency: int = 16,
        split: Split = "train",
        seed: int = 0,
        limit: int | None = None,
        toolsets: Sequence[str] | None = None,
        limits: AgentLimits | Mapping[str, object] | None = None,
        sampling: Sampling | Mapping[str, object] | None = None,
        deadline_s: float | None = None,
        environment_config: Mapping[str, object] | None = None,
        model_config: Mapping[str, object] | None = None,
        out: str | Path | None = None,
        resume: bool = False,
        observers: Iterable[Observer] = (),
    ) -> Run:
        """Run a model on an environment's tasks, and write the trajectories to a folder.

        Args:
            environment: Name or instance.
            model: Name or instance.
            tasks: Tasks to take; None takes all, which an endless environment refuses.
            group_size: Trajectories of each task.
            concurrency: Most trajectories at once.
            split: Which tasks.
            seed: Decides the tasks and their order.
            limit: Most trajectories to make now; the rest is left to a resume.
            toolsets: Narrows the environment's toolsets, never widens them.
            limits: Agent limits instead of the tasks' own; as a mapping, only its fields are set over them.
            sampling: Likewise.
            deadline_s: Seconds of wall time for one attempt at a trajectory, waiting included; beyond it, `cancelled`.
            environment_config: Fields of the environment's configuration, when given by name.
            model_config: Fields of the model's configuration, when given by name.
            out: The run's folder; `runs/ENVIRONMENT-MODEL-TIME` by default.
            resume: Finish the run that is in `out`: only what is missing runs.
            observers: Who watches this run besides those of this `Hermes`.

        Raises:
            UsageError: The run cannot be made at all (a name, a setting, the folder).
            ModelUnreachableError: The model does not answer.
            BackendUnavailableError: The backend cannot start sandboxes here.
            NoCapacityError: There is no room for a single sandbox.
        """
        work = Work(
            environment=self._environment(environment, environment_config),
            model=await self._running.models.get(model, model_config),
            tasks=tasks,
            group_size=group_size,
            concurrency=concurrency,
            split=split,
            seed=seed,
            limit=limit,
            options=rollout_options(toolsets=toolsets, limits=limits, sampling=sampling, deadline_s=deadline_s),
            run_id=_new_id(),
        )
        if work.environment.endless and tasks is None and limit is None:
            raise UsageError(
                f"environment {work.environment.name!r} has no end of tasks", hint="say how many: tasks=N, or --tasks N"
            )
        path = Path(out) if out is not None else default_directory(work.environment.name, work.model.name)
        with RunDirectory.open(path, describe_run(work, self._backend), resume=resume) as directory:
            async with self._running.observers.watched_by(observers):
                resources = replace(self._resources(), recordings=directory.recordings)
                return await execute_run(resources, replace(work, run_id=directory.config.run_id), directory)

    async def rollout(
        self,
        environment: str | Environment,
        task: Task,
        *,
        model: str | Model,
        sample_index: int = 0,
        toolsets: Sequence[str] | None = None,
        limits: AgentLimits | Mapping[str, object] | None = None,
        sampling: Sampling | Mapping[str, object] | None = None,
        deadline_s: float | None = None,
        environment_config: Mapping[str, object] | None = None,
        model_config: Mapping[str, object] | None = None,
    ) -> Trajectory:
        """Let an agent work on one task, and score what it did; arguments and errors as for `run`.

        A fault of the infrastructure is retried, then reported as an outcome without a reward.
        """
        return await rollout_with_retries(
            self._resources(),
            self._environment(environment, environment_config),
            task,
            await self._running.models.get(model, model_config),
            sample_index=sample_index,
            options=rollout_options(toolsets=toolsets, limits=limits, sampling=sampling, deadline_s=deadline_s),
        )

    async def stream(
        self,
        environment: str | Environment,
        *,
        model: str | Model,
        tasks: int | None = None,
        group_size: int = 1,
        concurrency: int = 16,
        split: Split = "train",
        seed: int = 0,
        toolsets: Sequence[str] | None = None,
        limits: AgentLimits | Mapping[str, object] | None = None,
        sampling: Sampling | Mapping[str, object] | None = None,
        deadline_s: float | None = None,
        environment_config: Mapping[str, object] | None = None,
        model_config: Mapping[str, object] | None = None,
    ) -> AsyncGenerator[Trajectory]:
        """Yield trajectories in the order in which they end; arguments and errors as for `run`.

        Nothing is written. At most `concurrency` trajectories wait to be taken: who takes them slowly slows the agents
        down. Close the generator (`contextlib.aclosing`) when you stop early.
        """
        work = Work(
            environment=self._environment(environment, environment_config),
            model=await self._running.models.get(model, model_config),
            tasks=tasks,
            group_size=group_size,
            concurrency=concurrency,
            split=split,
            seed=seed,
            options=rollout_options(toolsets=toolsets, limits=limits, sampling=sampling, deadline_s=deadline_s),
            run_id=_new_id(),
        )
        async with aclosing(stream_rollouts(self._running.tasks, self._resources(), work)) as trajectories:
            async for trajectory in trajectories:
                yield trajectory

    # Parts

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise UsageError("this Hermes is not entered", hint="async with Hermes(...) as hermes:")
        return self._engine

    async def _acquire(self, request: LeaseRequest) -> Slot:
        engine = self._running
        if engine.pool is None:
            raise UsageError("this Hermes has no sandbox backend", hint='Hermes(backend="local")')
        resolved = resolve_profile(request, self._settings.profiles)
        return Slot(await engine.pool.lease(resolved), engine.pool, engine.executor, self._tools)

    def _environment(self, environment: str | Environment, config: Mapping[str, object] | None) -> Environment:
        if isinstance(environment, str):
            return self._catalogue.environment(environment, config or {})
        if config:
            raise UsageError("environment_config is for an environment that is given by name")
        return environment

    def _resources(self) -> Resources:
        engine = self._running
        return Resources(
            executor=engine.executor,
            tools=self._catalogue.tools,
            acquire=self._acquire if engine.pool is not None else None,
            backend=self._backend.name if self._backend is not None else None,
            observers=engine.observers,
            interceptors=self._interceptors,
            leasing=self._leasing,
        )


def _new_id() -> str:
    return uuid.uuid4().hex[:12]

"""One task of an allocation, from `Received` to its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import artifacts, driver_config, environment, templates
from .drivers import DriverError, Task
from .restarts import Decision, RestartTracker
from .task_states import TaskState, event, killing, restarting, terminated

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .alloc_dir import TaskDir
    from .documents import Doc
    from .drivers import Driver

__all__ = ["Surroundings", "TaskRunner"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a task runner needs of its node."""

    allocation: Doc
    node: Doc
    folder: TaskDir
    variable: Callable[[str, Doc], dict[str, str] | None]
    changed: Callable[[], None]
    keep: Callable[[str, Doc | None], None]
    """Remember a task's handle for another process of the agent; `None` forgets it."""
    slow_failures: float
    """Seconds until it is told that a task which is not restarted could not start."""


PATIENCE = 3.0
"""Seconds that a template waits for a variable before it says so."""


class TaskRunner:
    """Runs one task, as often as its restart policy allows."""

    def __init__(self, spec: Doc, driver: Driver, around: Surroundings, state: TaskState | None = None) -> None:
        self.spec = spec
        self.driver = driver
        self.state = state or TaskState()
        self.handle: Doc | None = None
        self._around = around
        self._tracker = RestartTracker(spec["RestartPolicy"])
        self._killed = asyncio.Event()
        self._gone = False
        self._again = False
        self._rendered: list[str] | None = None
        self.wakened = asyncio.Event()
        """Set when a variable has changed."""

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.spec["Name"])

    def tell(self, happened: Doc, state: str | None = None) -> None:
        """Append an event, perhaps with a new state, and say that something has changed."""
        self.state.tell(happened)
        if state is not None:
            self.state.become(state)
        self._around.changed()

    async def run(self) -> None:
        """Run to the end; a task that another process of the agent started is taken over if it is still there."""
        if self.state.state == "dead":
            return
        if self.handle is None and not self.state.doc["Events"]:
            self.tell(event("Received"))
        while not self._killed.is_set():
            decision = await self._attempt()
            if self._gone or decision is None or self._killed.is_set():
                break
            if not decision.again:
                if decision.fails:
                    details = {"restart_reason": decision.reason, "fails_task": "true"}
                    more = {"RestartReason": decision.reason, "FailsTask": True}
                    self.tell(event("Not Restarting", decision.reason, details, **more), "dead")
                break
            self.state.restarted()
            self.tell(restarting(decision.reason, decision.delay), "pending")
            await self._pause(decision.delay / 1e9)
        if self._gone:
            return
        if self._killed.is_set():
            self.tell(event("Killed"))
        self.state.become("dead")
        self._around.changed()

    async def _attempt(self) -> Decision | None:
        """Start and wait once; `None` if it was killed before it could start."""
        try:
            if self.handle is None and not await self._unless_killed(self._start()):
                return None
        except driver_config.FailedValidation as error:
            await self._hold_back()
            self.tell(event("Failed Validation", str(error), {"validation_error": str(error)}))
            return self._tracker.decide(None, recoverable=False)
        except DriverError as error:
            return self._tracker.decide(None, recoverable=error.recoverable)
        assert self.handle is not None
        following = asyncio.ensure_future(self._follow_variables())
        try:
            end = await self.driver.wait(self.handle)
        finally:
            following.cancel()
        if self._gone:
            return None
        logs = {kind: self._around.folder.log(kind) for kind in ("stdout", "stderr")}
        await self.driver.remove(self.handle, logs)
        self.handle = None
        self._around.keep(self.name, None)
        self.tell(terminated(end))
        if self._again:
            self._again = False
            return Decision(True, "")
        return self._tracker.decide(end)

    async def _unless_killed(self, starting: Coroutine[object, object, None]) -> bool:
        """Await the start, or give it up when the task is killed."""
        start = asyncio.ensure_future(starting)
        killed = asyncio.ensure_future(self._killed.wait())
        waiting: set[asyncio.Future[Any]] = {start, killed}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        killed.cancel()
        if start.done():
            start.result()
            return True
        start.cancel()
        await asyncio.wait({start})
        return False

    async def _start(self) -> None:
        """Prepare the folder, fetch, render, and start through the driver."""
        folder, allocation = self._around.folder, self._around.allocation
        if not folder.root.exists():
            self.tell(event("Task Setup", "Building Task Directory", {"message": "Building Task Directory"}))
        folder.build()
        names = environment.build(allocation, self.spec, self._around.node, folder, isolated=self.driver.isolated)
        on_node = environment.names_of_node(self._around.node)
        await self._fetch(names)
        names |= await self._render(names)
        try:
            config = environment.fill_config(self.spec["Config"] or {}, on_node | self._known(names))
        except environment.UnknownVariable as error:
            raise driver_config.unparsable(f"* {error}") from error
        driver_config.check(self.spec["Driver"], config)
        task = Task(
            **{"allocation": allocation["ID"], "name": self.name, "user": self.spec.get("User") or ""},
            **{"config": config, "environment": names, "folder": folder, "resources": self.spec["Resources"]},
            ports=allocation["AllocatedResources"]["Shared"].get("Ports", []),
            labels={"com.hashicorp.nomad.alloc_id": allocation["ID"]},
            say=lambda text, details: self.tell(event("Driver", text, details, DriverMessage=text)),
        )
        try:
            await self.driver.prepare(task)
            self.handle = await self._begun(task)
        except DriverError as error:
            await self._hold_back()
            self.tell(event("Driver Failure", str(error), {"driver_error": str(error)}, DriverError=str(error)))
            raise
        self._around.keep(self.name, self.handle | {"driver": self.spec["Driver"]})
        self.tell(event("Started"), "running")

    async def _begun(self, task: Task) -> Doc:
        """Start, and if the task is killed meanwhile, end what has been started."""
        starting = asyncio.ensure_future(self.driver.start(task))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(DriverError):
                await self.driver.vanish(await starting)
            raise

    def _known(self, names: dict[str, str]) -> dict[str, str]:
        """What a configuration may refer to: not what templates have added."""
        return {key: value for key, value in names.items() if key not in self._from_templates}

    _from_templates: frozenset[str] = frozenset()

    async def _fetch(self, names: dict[str, str]) -> None:
        if not self.spec["Artifacts"] or self.state.doc["Restarts"]:
            return
        self.tell(event("Downloading Artifacts"))
        for artifact in self.spec["Artifacts"]:
            try:
                await artifacts.fetch(artifact, self._around.folder, names)
            except DriverError as error:
                self.tell(event("Failed Artifact Download", str(error), {"download_error": str(error)}))
                raise

    async def _render(self, names: dict[str, str]) -> dict[str, str]:
        """Render all templates, waiting for variables that do not exist yet; returns what they add."""
        told = False
        while True:
            self.wakened.clear()
            try:
                texts = self._texts(names)
                break
            except templates.MissingVariable as error:
                if not await self._woken_within(PATIENCE if not told else None):
                    missing = f"nomad.var.block({error}@{self._around.allocation['Namespace']}.global)"
                    self.tell(event("Template", f"Missing: {missing}"))
                    told = True
        added: dict[str, str] = {}
        for template, text in zip(self.spec["Templates"] or (), texts, strict=True):
            templates.write(template, text, self._around.folder, names)
            if template["Envvars"]:
                added |= templates.read_environment(text)
        self._rendered = texts
        self._from_templates = frozenset(added) - frozenset(self.spec.get("Env") or ())
        return added

    async def _woken_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wakened.wait()
        except TimeoutError:
            return False
        return True

    def _texts(self, names: dict[str, str]) -> list[str]:
        def variable(path: str) -> dict[str, str] | None:
            return self._around.variable(path, self.spec)

        return [templates.render(template, variable, names) for template in self.spec["Templates"] or ()]

    async def _follow_variables(self) -> None:
        """Render again when a variable has changed, and do what `ChangeMode` says."""
        while True:
            await self.wakened.wait()
            self.wakened.clear()
            try:
                texts = self._texts({})
            except (templates.MissingVariable, DriverError):
                continue  # the last rendering stays
            before, self._rendered = self._rendered, texts
            modes = set()
            for number, template in enumerate(self.spec["Templates"] or ()):
                if before is not None and texts[number] != before[number]:
                    templates.write(template, texts[number], self._around.folder, {})
                    modes.add(template["ChangeMode"])
            if "restart" in modes and self.handle is not None:
                said = "Template with change_mode restart re-rendered"
                self.tell(event("Restart Signaled", said))
                self._again = True
                await self.driver.stop(self.handle, self._signal, self.spec["KillTimeout"] / 1e9)

    @property
    def _signal(self) -> str:
        default = "SIGTERM" if self.spec["Driver"] == "docker" else "SIGINT"
        return str(self.spec["KillSignal"] or default)

    async def kill(self, *, happened: Doc | None = None) -> None:
        """Ask the task to end, and see to it."""
        if self.state.state == "dead" or self._killed.is_set():
            return
        if happened is not None:
            self.state.tell(happened)
        self.tell(killing(self.spec["KillTimeout"]))
        self._killed.set()
        if self.handle is not None:
            await self.driver.stop(self.handle, self._signal, self.spec["KillTimeout"] / 1e9)

    async def vanish(self) -> None:
        """End the task as if its machine were gone: nothing is told."""
        self._gone = True
        self._killed.set()
        if self.handle is not None:
            await self.driver.vanish(self.handle)

    async def recover(self, handle: Doc | None) -> None:
        """Take over a task of an earlier process of the agent, if it can be found."""
        if handle is not None and await self.driver.recover(handle):
            self.handle = handle

    async def _hold_back(self) -> None:
        if self._around.slow_failures and not self.spec["RestartPolicy"]["Attempts"]:
            await self._pause(self._around.slow_failures)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._killed.wait()
        except TimeoutError:
            return

"""Keeps the models of one `Hermes` running."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import TaskGroup, TaskStatus

    from hermes_core._catalogue import Catalogue
    from hermes_core.models import Model

__all__ = ["ModelKeeper"]


class ModelKeeper:
    """Starts a model when it is first asked for and keeps it until the task group ends.

    Each model is entered and left by a task of its own, whoever asked for it: a model may hold task groups, which must
    be left by the task that entered them.

    Args:
        catalogue: Makes models from their names.
        tasks: Owns the models' tasks.
    """

    def __init__(self, catalogue: Catalogue, tasks: TaskGroup) -> None:
        self._catalogue = catalogue
        self._tasks = tasks
        self._running: dict[tuple[str, str] | int, Model] = {}
        self._lock = anyio.Lock()

    async def get(self, model: str | Model, config: Mapping[str, object] | None = None) -> Model:
        """A started model, by name and configuration or as an instance.

        Raises:
            UnknownNameError: No plugin registers the name.
            ConfigError: A configuration value does not fit.
            ModelUnreachableError: It does not answer.
        """
        key = (model, json.dumps(config or {}, sort_keys=True, default=str)) if isinstance(model, str) else id(model)
        async with self._lock:
            if key not in self._running:
                made = self._catalogue.model(model, config or {}) if isinstance(model, str) else model
                made.tool_call_formats = self._catalogue.tool_call_formats()
                self._running[key] = await self._tasks.start(self._keep, made)
            return self._running[key]

    async def _keep(self, model: Model, *, task_status: TaskStatus[Model]) -> None:
        async with model as started:
            task_status.started(started)
            await anyio.sleep_forever()

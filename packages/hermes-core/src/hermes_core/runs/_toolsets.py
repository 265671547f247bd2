"""Which tools a task's agent gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hermes_core.environments import Environment, Task
    from hermes_core.execution import Tool

__all__ = ["enabled_tools"]


def enabled_tools(
    resolve: Callable[[Sequence[str]], Mapping[str, Tool]],
    environment: Environment,
    task: Task | None,
    toolsets: Sequence[str] | None,
) -> Mapping[str, Tool]:
    """The tools of a task: its own toolsets, else the environment's, narrowed by the run's.

    Args:
        resolve: From toolsets to tools.
        environment: Where the task comes from.
        task: The task; None for one without toolsets of its own.
        toolsets: The run's toolsets; None keeps all that the task has.

    Raises:
        UsageError: The run's toolsets hold a tool that the task's do not.
        UnknownNameError: A toolset or tool is not registered.
    """
    own = task.toolsets if task is not None and task.toolsets is not None else environment.toolsets
    allowed = resolve(own)
    if toolsets is None:
        return allowed
    for toolset in toolsets:
        beyond = sorted(set(resolve((toolset,))) - set(allowed))
        if beyond:
            raise UsageError(
                f"toolset {toolset!r} would give environment {environment.name!r} tools that it does not have: "
                f"{', '.join(beyond)}",
                hint=f"a run can only narrow the environment's toolsets: {', '.join(own) or 'none'}",
            )
    return resolve(toolsets)

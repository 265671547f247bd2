"""Everything that a plugin may add to Hermes.

A distribution makes itself known by an entry point in the group `hermes`, which names a module. Its functions marked
`@hookimpl` answer the hooks below. Hooks are synchronous and only hand things over; what is handed over follows a
protocol, named at each hook. An `Entry` is imported when it is first used, so that a plugin costs nothing until then.

    # pyproject.toml                          # hermes_tools_dice/plugin.py
    [project.entry-points.hermes]             from hermes_core import Entry, hookimpl
    tools-dice = "hermes_tools_dice.plugin"
                                              @hookimpl
                                              def hermes_tools():
                                                  return [Entry("roll", "hermes_tools_dice.roll:roll", "Roll a die")]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from click import Command

    from hermes_core.environments import Environment
    from hermes_core.execution import BatchExecutor, Tool
    from hermes_core.exporters import Exporter
    from hermes_core.models import Model, ToolCallFormat
    from hermes_core.observers import Interceptor, Observer
    from hermes_core.plugins import Entry
    from hermes_core.sandbox import SandboxBackend
    from hermes_core.slots import SlotPool
    from hermes_core.toolsets import Toolset

__all__ = [
    "hermes_batch_executors",
    "hermes_commands",
    "hermes_environments",
    "hermes_exporters",
    "hermes_interceptors",
    "hermes_models",
    "hermes_observers",
    "hermes_sandbox_backends",
    "hermes_slot_pools",
    "hermes_tool_call_formats",
    "hermes_tools",
    "hermes_toolsets",
    "hookimpl",
    "hookspec",
]

hookspec = pluggy.HookspecMarker("hermes")
hookimpl = pluggy.HookimplMarker("hermes")


@hookspec
def hermes_tools() -> Iterable[Tool | Entry]:
    """Tools: functions decorated with `@tool`, or instances of classes that implement `Tool`."""
    raise NotImplementedError


@hookspec
def hermes_toolsets() -> Iterable[Toolset | Entry]:
    """Toolsets: named, composable selections of tools."""
    raise NotImplementedError


@hookspec
def hermes_sandbox_backends() -> Iterable[type[SandboxBackend] | Entry]:
    """Sandbox backends: classes that implement `SandboxBackend`."""
    raise NotImplementedError


@hookspec
def hermes_environments() -> Iterable[type[Environment] | Entry]:
    """Environments: classes that implement `Environment`."""
    raise NotImplementedError


@hookspec
def hermes_models() -> Iterable[type[Model] | Entry]:
    """Models: classes that implement `Model`, with a pydantic `Config` and a `name`."""
    raise NotImplementedError


@hookspec
def hermes_tool_call_formats() -> Iterable[ToolCallFormat | Entry]:
    """Text formats of tool calls: instances that implement `ToolCallFormat`."""
    raise NotImplementedError


@hookspec
def hermes_exporters() -> Iterable[Exporter | Entry]:
    """Exporters: write trajectories in another system's format."""
    raise NotImplementedError


@hookspec
def hermes_observers() -> Iterable[type[Observer] | Entry]:
    """Observers: watch runs, trajectories, tool calls and sandboxes."""
    raise NotImplementedError


@hookspec
def hermes_interceptors() -> Iterable[type[Interceptor] | Entry]:
    """Interceptors: may replace a tool call or a tool result; both versions are recorded."""
    raise NotImplementedError


@hookspec
def hermes_commands() -> Iterable[Command | Entry]:
    """Commands of the command line `hermes`."""
    raise NotImplementedError


@hookspec
def hermes_slot_pools() -> Iterable[type[SlotPool] | Entry]:
    """Slot pools: classes that implement `SlotPool`, chosen by the setting `slot_pool`."""
    raise NotImplementedError


@hookspec
def hermes_batch_executors() -> Iterable[type[BatchExecutor] | Entry]:
    """Batch executors: classes that implement `BatchExecutor`, chosen by the setting `batch_executor`."""
    raise NotImplementedError

"""Run LLM agents on tasks in isolated sandbox slots, and get trajectories that are ready to train on.

Names are imported when they are first used, so that a plugin which needs `Entry` and `hookimpl` pays for nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_core._hermes import Hermes as Hermes
    from hermes_core.agent import Agent as Agent
    from hermes_core.agent import AgentLimits as AgentLimits
    from hermes_core.environments import Environment as Environment
    from hermes_core.environments import SandboxRequest as SandboxRequest
    from hermes_core.environments import Score as Score
    from hermes_core.environments import Task as Task
    from hermes_core.exceptions import HermesError as HermesError
    from hermes_core.exceptions import ToolError as ToolError
    from hermes_core.execution import BackgroundProcess as BackgroundProcess
    from hermes_core.execution import ExecResult as ExecResult
    from hermes_core.execution import ProcessOutput as ProcessOutput
    from hermes_core.execution import Slot as Slot
    from hermes_core.execution import Tool as Tool
    from hermes_core.execution import ToolCall as ToolCall
    from hermes_core.execution import ToolContext as ToolContext
    from hermes_core.execution import ToolDefinition as ToolDefinition
    from hermes_core.execution import ToolResult as ToolResult
    from hermes_core.hookspecs import hookimpl as hookimpl
    from hermes_core.models import AssistantTurn as AssistantTurn
    from hermes_core.models import Message as Message
    from hermes_core.models import Model as Model
    from hermes_core.models import Sampling as Sampling
    from hermes_core.plugins import Entry as Entry
    from hermes_core.runs import Run as Run
    from hermes_core.tools import tool as tool
    from hermes_core.toolsets import Toolset as Toolset
    from hermes_core.trajectory import Segment as Segment
    from hermes_core.trajectory import Step as Step
    from hermes_core.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

_HOMES = {
    "Agent": "agent",
    "AgentLimits": "agent",
    "AssistantTurn": "models",
    "BackgroundProcess": "execution",
    "Entry": "plugins",
    "Environment": "environments",
    "ExecResult": "execution",
    "Hermes": "_hermes",
    "HermesError": "exceptions",
    "Message": "models",
    "Model": "models",
    "ProcessOutput": "execution",
    "Run": "runs",
    "Sampling": "models",
    "SandboxRequest": "environments",
    "Score": "environments",
    "Segment": "trajectory",
    "Slot": "execution",
    "Step": "trajectory",
    "Task": "environments",
    "Tool": "execution",
    "ToolCall": "execution",
    "ToolContext": "execution",
    "ToolDefinition": "execution",
    "ToolError": "exceptions",
    "ToolResult": "execution",
    "Toolset": "toolsets",
    "Trajectory": "trajectory",
    "hookimpl": "hookspecs",
    "tool": "tools",
}

__all__ = [
    "Agent",
    "AgentLimits",
    "AssistantTurn",
    "BackgroundProcess",
    "Entry",
    "Environment",
    "ExecResult",
    "Hermes",
    "HermesError",
    "Message",
    "Model",
    "ProcessOutput",
    "Run",
    "Sampling",
    "SandboxRequest",
    "Score",
    "Segment",
    "Slot",
    "Step",
    "Task",
    "Tool",
    "ToolCall",
    "ToolContext",
    "ToolDefinition",
    "ToolError",
    "ToolResult",
    "Toolset",
    "Trajectory",
    "__version__",
    "hookimpl",
    "tool",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))

"""Observers watch, interceptors may change; neither can delay or falsify a run."""

from hermes_core.observers._events import (
    Event,
    RunFinished,
    RunStarted,
    SandboxFinished,
    SandboxStarted,
    ToolCallFinished,
    ToolCallStarted,
    TrajectoryFinished,
    TrajectoryStarted,
)
from hermes_core.observers._hub import ObserverHub
from hermes_core.observers._interceptor import Interceptor
from hermes_core.observers._observer import Observer
from hermes_core.observers._watched_backend import WatchedBackend

__all__ = [
    "Event",
    "Interceptor",
    "Observer",
    "ObserverHub",
    "RunFinished",
    "RunStarted",
    "SandboxFinished",
    "SandboxStarted",
    "ToolCallFinished",
    "ToolCallStarted",
    "TrajectoryFinished",
    "TrajectoryStarted",
    "WatchedBackend",
]

"""Environments: where tasks come from, and how trajectories are scored."""

from hermes_core.environments._protocol import Environment, SandboxRequest, Score, Split, Task

__all__ = ["Environment", "SandboxRequest", "Score", "Split", "Task"]

"""Which outcome an error is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.exceptions import (
    ContextExceededError,
    HermesError,
    ModelError,
    SandboxError,
    SlotError,
    UsageError,
)

if TYPE_CHECKING:
    from hermes_core.trajectory import Outcome

__all__ = ["outcome_of"]


def outcome_of(error: HermesError) -> Outcome:
    """Tell whose doing an error is.

    Raises:
        UsageError: As given: what was asked for cannot be done at all, so that it is no trajectory's outcome.
    """
    if isinstance(error, UsageError):
        raise error
    if isinstance(error, ContextExceededError):
        return "context_exceeded"
    if isinstance(error, SlotError):
        return "agent_error"
    if isinstance(error, ModelError):
        return "model_error"
    if isinstance(error, SandboxError):
        return "sandbox_error"
    return "environment_error"

"""The isolation levels of slots, and the refusal of less than is required."""

from __future__ import annotations

from typing import Literal, TypeAlias

from hermes_core.exceptions import BackendUnavailableError

__all__ = ["ISOLATION_LEVELS", "IsolationLevel", "IsolationSetting", "LimitValue", "check_isolation", "require_slots"]

IsolationLevel = Literal["namespaces", "user", "none"]
IsolationSetting = Literal["auto", "namespaces", "user", "none"]
ISOLATION_LEVELS: tuple[IsolationLevel, ...] = ("namespaces", "user", "none")
"""Strongest first."""

LimitValue: TypeAlias = int | str | None
"""Bytes or a count, the name of a kind, or None for no limit."""


def check_isolation(found: str, required: IsolationLevel | None, backend: str) -> None:
    """See that slots are isolated well enough.

    Args:
        found: The level that they have.
        required: The least that is accepted; None accepts everything.
        backend: Whose they are, for the error.

    Raises:
        BackendUnavailableError: They are not.
    """
    if required is None:
        return
    if found not in ISOLATION_LEVELS or ISOLATION_LEVELS.index(found) > ISOLATION_LEVELS.index(required):
        raise BackendUnavailableError(
            f"slots of backend {backend!r} have isolation {found!r}, and {required!r} is required",
            hint="hermes doctor says what stands in the way; or lower require_isolation",
        )


def require_slots(obstacle: str | None, where: str, *, hint_prefix: str = "") -> None:
    """See that slots can be opened.

    Args:
        obstacle: What a daemon says stands in the way, its hint behind a semicolon; None if nothing does.
        where: Behind "cannot be had", as in `in containers here`.
        hint_prefix: Before what may help.

    Raises:
        BackendUnavailableError: They cannot.
    """
    if obstacle is not None:
        reason, _, hint = obstacle.partition("; ")
        raise BackendUnavailableError(
            f"isolated slots cannot be had {where}: {reason}", hint=f"{hint_prefix}{hint}" if hint else None
        )

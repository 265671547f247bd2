"""What tools keep between two calls, for as long as a lease lasts."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, TypeVar

from hermes_core.exceptions import UsageError
from hermes_core.terminals import Recording

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_core.slots import LeaseRequest

__all__ = ["Belongings"]

Kept = TypeVar("Kept")

LONGEST_NAME = 150


class Belongings:
    """Things by name, of one lease. The processes behind them end with the lease.

    Args:
        request: What was leased.
    """

    def __init__(self, request: LeaseRequest) -> None:
        self._request = request
        self._things: dict[str, object] = {}

    def find(self, name: str, kind: type[Kept]) -> Kept | None:
        """Return what was kept under a name, if it is of this kind."""
        thing = self._things.get(name)
        return thing if isinstance(thing, kind) else None

    def count(self, kind: type) -> int:
        """How many things of a kind are kept."""
        return sum(isinstance(thing, kind) for thing in self._things.values())

    def keep(self, name: str, thing: object) -> None:
        """Keep something in place of what had the name before."""
        self._things[name] = thing

    def drop(self, name: str) -> None:
        """Forget something."""
        self._things.pop(name, None)

    def clear(self) -> None:
        """Forget everything."""
        self._things.clear()

    def new_recording(self) -> Recording:
        """A recording in the run's folder, or in memory where there is none.

        Raises:
            UsageError: The folder cannot be written.
        """
        folder = self._request.recordings
        if folder is None:
            return Recording()
        path = _new_file(folder, self._request.trajectory_id or "slot")
        return Recording(path)


def _new_file(folder: Path, trajectory_id: str) -> Path:
    """The first free name; the numbers go on where an earlier attempt of the trajectory ended."""
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", trajectory_id).lstrip(".-")[:LONGEST_NAME]
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write recordings to {folder}: {error.strerror}") from None
    paths = (folder / f"{name}-{number}.cast" for number in count(1))
    return next(path for path in paths if not path.exists())

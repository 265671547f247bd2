"""What a check is: one promise, and the function that sees whether it is kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from unittest import SkipTest

import anyio

if TYPE_CHECKING:
    from hermes_core.testing.contract._rig import ContractRig

__all__ = ["ALL_LEVELS", "CONFINED", "NAMESPACES", "Check", "CheckFunction", "Level", "Need", "NotPromised", "check"]

Level = Literal["namespaces", "user", "none"]

Need = Literal[
    "network none",
    "network host",
    "python3",
    "a neighbour",
    "kill_slots",
    "limit memory_bytes",
    "limit processes",
    "limit file_bytes",
    "limit open_files",
    "limit workspace_bytes",
    "limit tmp_bytes",
    "limit home_bytes",
    "limit system_calls",
]
"""What a check needs besides a slot, and may be told that there is none of: see `ContractRig.missing`."""

CheckFunction: TypeAlias = Callable[["ContractRig"], Awaitable[None]]

NAMESPACES: tuple[Level, ...] = ("namespaces",)
CONFINED: tuple[Level, ...] = ("namespaces", "user")
ALL_LEVELS: tuple[Level, ...] = ("namespaces", "user", "none")

CHECK_S = 90.0
"""A check that takes longer than this hangs."""


class NotPromised(SkipTest):
    """The check was not run: nothing is promised at this level of isolation, or it cannot be seen.

    No error: pytest and unittest report the test as skipped, with the reason.
    """


@dataclass(frozen=True, slots=True)
class Check:
    """One promise of the contract.

    Attributes:
        id: Its name, as in the table of `docs/explanation/isolation.md`.
        promise: What is promised, in one line.
        levels: The levels of isolation at which it is promised.
        needs: What must be there to see whether it is kept.
        function: Raises AssertionError if it is not kept.
    """

    id: str
    promise: str
    levels: tuple[Level, ...]
    needs: tuple[Need, ...]
    function: CheckFunction

    async def __call__(self, rig: ContractRig) -> None:
        """See whether the promise is kept; the slots that the check leases are given back.

        Raises:
            AssertionError: It is not.
            NotPromised: Nothing was promised here, or it cannot be seen; the reason says which.
        """
        if rig.level not in self.levels:
            raise NotPromised(f"not promised at level {rig.level}: {self.promise}")
        for need in self.needs:
            if (reason := rig.missing(need)) is not None:
                raise NotPromised(f"cannot be seen without {need} ({reason}): {self.promise}")
        try:
            with anyio.move_on_after(CHECK_S) as scope:
                await self.function(rig)
        finally:
            await rig.release_all()
        if scope.cancelled_caught:
            raise AssertionError(f"{self.id} did not end within {CHECK_S:g} s")


def check(promise: str, *, levels: tuple[Level, ...], needs: tuple[Need, ...] = ()) -> Callable[[CheckFunction], Check]:
    """Make a check of a function; its name, with hyphens, is the check's id.

    Args:
        promise: What is promised, in one line.
        levels: The levels at which it is.
        needs: What must be there to see it.
    """

    def make(function: CheckFunction) -> Check:
        return Check(function.__name__.replace("_", "-"), promise, levels, needs, function)

    return make

"""The contract of an exporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import TextIO

    from hermes_core.trajectory import Trajectory

__all__ = ["ExportReport", "Exporter"]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        rows: Rows written.
        left_out: Reason to how many trajectories were left out for it. Nothing is left out without a reason.
    """

    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)


class Exporter(Protocol):
    """Writes trajectories in another system's format."""

    @property
    def name(self) -> str:
        """As it is registered."""

    def export(self, trajectories: Iterable[Trajectory], target: TextIO, *, allow_off_policy: bool) -> ExportReport:
        """Write trajectories as they come; they need not fit into memory.

        Args:
            trajectories: What to write.
            target: Where to; the caller closes it.
            allow_off_policy: Also take turns whose logprobs are not those of the sampling distribution.
        """

"""A slot for a command that a person types."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hermes_core._hermes import Hermes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from hermes_core.execution import Slot
    from hermes_core.plugins import PluginManager
    from hermes_core.sandbox import NetworkPolicy

__all__ = ["Wanted", "leased"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The slot that was asked for.

    Attributes:
        plugins: Where the backend is looked up.
        backend: Its name.
        backend_config: Fields of its configuration.
        network: Network policy of the slot.
        image: Image of the sandbox, or None.
        profile: Name of a sandbox profile, or None.
    """

    plugins: PluginManager
    backend: str
    backend_config: Mapping[str, str]
    network: NetworkPolicy
    image: str | None
    profile: str | None


@asynccontextmanager
async def leased(wanted: Wanted) -> AsyncGenerator[Slot]:
    """Lease a slot of a fresh sandbox, which ends with the lease; errors as of `Hermes`.

    However long the sandbox takes to start: whoever typed the command can interrupt it.
    """
    async with (
        Hermes(wanted.backend, backend_config=wanted.backend_config, toolsets=(), plugins=wanted.plugins) as hermes,
        hermes.lease(wanted.profile, image=wanted.image, network=wanted.network, wait_s=None) as slot,
    ):
        yield slot

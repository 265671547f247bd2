"""Who has which sandboxes, and who of them lives: variables of the cluster, renewed by the living."""

from __future__ import annotations

import logging
import math
import os
import socket
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import HermesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_backend_nomad._cluster import Cluster

__all__ = ["Holder", "Leases", "read_leases"]

HOLDERS = "hermes/holders/"
SEPARATOR = "-ttl"
RENEWALS = 4
"""How often a lease is renewed before it would run out."""

AGAIN_S = 1.0
"""How soon it is tried again where it failed: once the cluster answers, others may sweep what looks left behind."""
END_S = 5.0
"""How long it is tried to end one: it runs out by itself as well."""

_logger = logging.getLogger(__name__)


class Holder:
    """This process's backend, as others see it: alive as long as its variable is renewed.

    How long its lease lasts is part of the variable's name, so that a list of names tells everything.

    Args:
        cluster: Has the variable.
        ttl_s: Seconds that the lease lasts.
    """

    def __init__(self, cluster: Cluster, ttl_s: float) -> None:
        self._cluster = cluster
        self._ttl_s = ttl_s
        self.name = f"{uuid.uuid4().hex[:12]}{SEPARATOR}{math.ceil(ttl_s)}"
        self._offset_s = math.nan

    @property
    def now(self) -> float:
        """The clock by which leases are told to last, in seconds since 1970; there once it has renewed its own.

        That of the server that leads, which dates them. An agent's may differ, and would have living runs swept.
        """
        return self._offset_s + anyio.current_time()

    async def renew(self) -> None:
        """Say that it lives."""
        path = f"{HOLDERS}{self.name}"
        content = {"Path": path, "Items": {"host": socket.gethostname(), "pid": str(os.getpid())}}
        answer = await self._cluster.put("var", path, what="renew the lease of this run", content=content)
        self._offset_s = answer.content["ModifyTime"] / 1e9 - anyio.current_time()

    async def lives(self, name: str) -> bool:
        """Whether a holder lives, as this one does whatever became of its lease; to be asked after its name was read.

        One that was not there when leases were listed may have taken something since.
        """
        return name == self.name or (name != "" and name in (await read_leases(self._cluster, self.now)).living)

    async def keep(self) -> None:
        """Renew it for ever."""
        pause_s = self._ttl_s / RENEWALS
        while True:
            await anyio.sleep(pause_s)
            try:
                await self.renew()
            except HermesError as error:
                level = logging.DEBUG if pause_s == AGAIN_S else logging.WARNING
                _logger.log(level, "the lease of this run's sandboxes was not renewed: %s", error.message)
                pause_s = AGAIN_S
            else:
                pause_s = self._ttl_s / RENEWALS

    async def end(self) -> None:
        """Say that it lives no more."""
        until = anyio.current_time() + END_S
        await self._cluster.delete("var", f"{HOLDERS}{self.name}", what="end the lease of this run", until=until)


@dataclass(frozen=True, slots=True)
class Leases:
    """What the leases say at some moment.

    Attributes:
        living: Holders whose leases last.
        run_out: Paths of the other leases, and the index of the last change of each.
    """

    living: frozenset[str]
    run_out: Mapping[str, int]


async def read_leases(cluster: Cluster, now: float | None) -> Leases:
    """Return which holders live.

    Args:
        cluster: Has the leases.
        now: The time, as of a holder; None for that of the agent, which is good enough for looking.
    """
    answer = await cluster.get("vars", what="list leases", params={"prefix": HOLDERS})
    living: set[str] = set()
    run_out: dict[str, int] = {}
    for variable in answer.content or ():
        name = variable["Path"].removeprefix(HOLDERS)
        age_s = (answer.at if now is None else now) - variable["ModifyTime"] / 1e9
        if age_s > _ttl_of(name):
            run_out[variable["Path"]] = variable["ModifyIndex"]
        else:
            living.add(name)
    return Leases(frozenset(living), run_out)


def _ttl_of(name: str) -> float:
    try:
        return float(name.rpartition(SEPARATOR)[2])
    except ValueError:
        return math.inf  # a later version's: not ours to judge

"""What is secret about one sandbox, and who has it: a variable that goes with its job."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from hermes_backend_nomad._certificates import make_certificates
from hermes_backend_nomad._errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_backend_nomad._cluster import Cluster

__all__ = ["SandboxSecrets"]

TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class SandboxSecrets:
    """The variable of one sandbox's job.

    Attributes:
        path: Where it is.
        token: To say hello to the daemon with.
        holder: Who has the sandbox; empty when nobody does.
        server: Certificate and key of the daemon; empty without TLS.
        client: Certificate and key of whoever connects to it.
        index: Of its last change, once it was written.
    """

    path: str
    token: str
    holder: str
    server: str = ""
    client: str = ""
    index: int = 0

    @classmethod
    def make(cls, path: str, holder: str, *, tls: bool) -> Self:
        """Make new ones."""
        made = make_certificates() if tls else None
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return cls(path, token, holder, made.server if made else "", made.client if made else "")

    @classmethod
    async def read(cls, cluster: Cluster, path: str) -> Self | None:
        """Return those of a sandbox; None if there are none."""
        try:
            answer = await cluster.get("var", path, what="read a sandbox's variable")
        except NotFoundError:
            return None
        items: Mapping[str, str] = answer.content["Items"]
        return cls(
            path,
            items["token"],
            items.get("holder", ""),
            items.get("tls", ""),
            items.get("client", ""),
            answer.content["ModifyIndex"],
        )

    async def write(self, cluster: Cluster, until: float = math.inf) -> Self:
        """Write them, unless somebody else did meanwhile.

        Args:
            cluster: Where.
            until: Time on the event loop's clock when it is over in any case.

        Raises:
            ConflictError: Somebody did.
        """
        items = {"token": self.token, "holder": self.holder, "tls": self.server, "client": self.client}
        content = {"Path": self.path, "Items": {name: text for name, text in items.items() if text}}
        try:
            answer = await cluster.put(
                *("var", self.path),
                what="write a sandbox's variable",
                content=content,
                params={"cas": self.index},
                until=until,
            )
        except ConflictError:
            # It may have been this one, whose answer was lost.
            found = await self.read(cluster, self.path)
            if found is None or (found.token, found.holder) != (self.token, self.holder):
                raise
            return found
        return replace(self, index=answer.content["ModifyIndex"])

    async def taken_by(self, holder: str, cluster: Cluster, until: float = math.inf) -> Self | None:
        """Have them say who has the sandbox; None if somebody else was quicker; see `write`."""
        try:
            return await replace(self, holder=holder).write(cluster, until)
        except ConflictError:
            return None

"""A cluster that tests talk to, whatever stands behind its address."""

from __future__ import annotations

import functools
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .documents import Doc

__all__ = ["Cluster", "Hook"]

Hook = Literal["cut-streams", "fail", "delay", "lose-node", "capacity", "mock", "kill"]
"""What only some clusters can be told to do; `kill` ends the agent's process, the others are the stand-in's."""

WAIT = 30.0
"""Seconds after which something that should happen counts as not happening."""


@functools.cache
def trust(ca: Path | None, cert: tuple[Path, Path] | None) -> ssl.SSLContext:
    """Make a context; it is kept, since that takes longer than a call."""
    context = ssl.create_default_context(cafile=ca)
    if cert:
        context.load_cert_chain(*cert)
    return context


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where it is, and how to talk to it."""

    address: str
    kind: Literal["stand-in", "agent", "given"]
    token: str | None = None
    ca: Path | None = None
    cert: tuple[Path, Path] | None = None
    can_be_killed: bool = False

    def supports(self, hook: Hook) -> bool:
        """Tell whether the cluster can be told to do something."""
        return self.can_be_killed if hook == "kill" else self.kind == "stand-in"

    def client(self) -> httpx.Client:
        """Open a client; its calls have no limit of time of their own."""
        headers = {"X-Nomad-Token": self.token} if self.token else {}
        return httpx.Client(base_url=self.address, headers=headers, verify=trust(self.ca, self.cert), timeout=60.0)

    def answer(self, method: str, path: str, body: object = None, **query: str | int) -> httpx.Response:
        """Ask, and return whatever comes back."""
        with self.client() as client:
            return client.request(method, path, json=body, params=query)

    def call(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        """Ask for a JSON document.

        Raises:
            AssertionError: The answer is an error.
        """
        found = self.answer(method, path, body, **query)
        assert found.is_success, f"{method} {path}: {found.status_code} {found.text}"
        return found.json() if found.content else None

    def hook(self, path: str, **body: object) -> Any:
        """Tell a stand-in to do something."""
        assert self.kind == "stand-in", f"{self.kind} has no hooks"
        return self.call("POST", f"/stand-in/{path}", body)

    def eventually(self, look: Callable[[], Any], why: str = "", seconds: float = WAIT) -> Any:
        """Look until there is something to see, and return it."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, why or "it does not happen"
            time.sleep(0.03)
        return found

    def register(self, job: Doc) -> Doc:
        """Register a job."""
        found: Doc = self.call("PUT", "/v1/jobs", {"Job": job})
        return found

    def purge(self, job: str) -> None:
        """Deregister a job and forget it."""
        self.answer("DELETE", f"/v1/job/{job}", purge="true")

    def allocations(self, job: str) -> list[Doc]:
        """Return the stubs of a job's allocations, the oldest first."""
        found: list[Doc] = self.call("GET", f"/v1/job/{job}/allocations")
        return sorted(found, key=lambda one: int(one["CreateIndex"]))

    def evaluation(self, name: str) -> Doc:
        """Wait until an evaluation is complete."""

        def look() -> Doc | None:
            found: Doc = self.call("GET", f"/v1/evaluation/{name}")
            return found if found["Status"] == "complete" else None

        found: Doc = self.eventually(look, f"evaluation {name} is not completed")
        return found

    def allocation(self, job: str, *statuses: str) -> Doc:
        """Wait until a job has an allocation with one of these client statuses, and return it in full."""

        def look() -> Doc | None:
            for one in self.allocations(job):
                if one["ClientStatus"] in statuses:
                    found: Doc = self.call("GET", f"/v1/allocation/{one['ID']}")
                    return found
            return None

        found: Doc = self.eventually(look, f"{job} has no allocation that is {' or '.join(statuses)}")
        return found

    def logs(self, allocation: str, task: str = "main", kind: str = "stdout", **query: str | int) -> str:
        """Return the output of a task."""
        path = f"/v1/client/fs/logs/{allocation}"
        found = self.answer("GET", path, task=task, type=kind, plain="true", **query)
        assert found.is_success, found.text
        return found.text

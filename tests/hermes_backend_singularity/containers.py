"""Looks at what a container is made of, from outside, and apart from what the backend itself knows about it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from tests.process_tree import children, supervisors_of

from hermes_backend_singularity._sandbox import SingularitySandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_core.sandbox import Sandbox

__all__ = ["Container", "eventually", "instances"]


def instances() -> str:
    """What Apptainer itself lists as instances of this user."""
    return subprocess.run(
        ["apptainer", "instance", "list", "--json"], capture_output=True, text=True, check=True
    ).stdout


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - of what others do there are no events
            await anyio.sleep(0.01)


@dataclass(frozen=True)
class Container:
    """The processes of a running container.

    Attributes:
        keeper: The shell that keeps the engine.
        engine: Apptainer.
        first: The first process inside.
        daemon: The daemon.
        session: The session that everything is started in.
        namespace: The process namespace inside.
    """

    keeper: int
    engine: int
    first: int
    daemon: int
    session: int
    namespace: str

    @classmethod
    def of(cls, sandbox: Sandbox) -> Container:
        """Look at a container that runs."""
        assert isinstance(sandbox, SingularitySandbox)
        assert sandbox.pid is not None
        keeper = sandbox.pid
        (engine,) = children(keeper)
        first = next(pid for pid in children(engine) if _namespace(pid) != _namespace(os.getpid()))
        daemon = children(first)[0]  # later ones are orphans
        # Held, so that no other namespace ever has its number.
        os.open(f"/proc/{first}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        return cls(keeper, engine, first, daemon, os.getsid(keeper), _namespace(first))

    def processes(self) -> list[int]:
        """The processes that are left: those of the session, and those inside."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]

    def supervisors(self) -> list[int]:
        """The supervisors of its slots."""
        return supervisors_of(self.daemon)

    def _has(self, pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state != "Z" and (os.getsid(pid) == self.session or _namespace(pid) == self.namespace)
        except OSError:
            return False


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")

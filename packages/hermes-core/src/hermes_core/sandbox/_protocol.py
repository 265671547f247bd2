"""The contract of a sandbox backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from anyio.abc import ByteStream
    from pydantic import BaseModel

__all__ = ["Capabilities", "NetworkPolicy", "Sandbox", "SandboxBackend", "SandboxInfo", "SandboxSpec", "SandboxState"]

NetworkPolicy = Literal["none", "host"]
SandboxState = Literal["running", "starting", "left behind"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can honour; what it cannot is refused before anything starts.

    Attributes:
        isolation: Levels that its slots can have, best first.
        network: Policies that a slot can have.
        image_per_task: Whether a sandbox can be made from an image of the task's own.
        gpu: Whether it can hand out GPUs.
        snapshot: Whether a sandbox can be saved and restored.
        trio: Whether it runs under trio as well as asyncio.
    """

    isolation: tuple[str, ...] = ("namespaces",)
    network: tuple[NetworkPolicy, ...] = ("none", "host")
    image_per_task: bool = False
    gpu: bool = False
    snapshot: bool = False
    trio: bool = True


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What a sandbox is made of. Equal specs may share sandboxes.

    Attributes:
        slots: How many slots it hosts.
        image: Image to run, where the backend has any.
        profile: Name of the profile that this came from.
        environment: Variables that the daemon gives every slot.
    """

    slots: int
    image: str | None = None
    profile: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox that an owner left behind, or has running.

    Attributes:
        name: Unique among the owner's sandboxes.
        owner: Who started it, as told to `start`.
        state: `running`, `starting`, or `left behind`: its owner is dead, and `cleanup` removes what is left.
        age_s: Seconds since it was started, if that is known.
    """

    name: str
    owner: str
    state: SandboxState
    age_s: float | None = None


class Sandbox(Protocol):
    """One started sandbox with a daemon inside."""

    @property
    def name(self) -> str:
        """Unique among the owner's sandboxes."""

    @property
    def capacity(self) -> int:
        """How many slots it hosts."""

    @property
    def token(self) -> str | None:
        """The token to say hello with, if the daemon asks for one."""

    async def connect(self) -> ByteStream:
        """Open a stream to the daemon; may be called again and again.

        Raises:
            SandboxLostError: The sandbox is gone.
        """

    async def alive(self) -> str | None:
        """None while it lives, else why it does not (one line)."""

    async def stop(self) -> None:
        """End it and all that is in it; idempotent."""


class SandboxBackend(Protocol):
    """Provisions sandboxes somewhere; an async context manager.

    A backend's class has an attribute `Config`, a frozen pydantic model of its settings, every field with a default; it
    is made from it alone. Fields named as those of `PoolConfig` (`slots_per_sandbox`, `max_sandboxes`) size the pool.
    """

    @property
    def name(self) -> str:
        """As it is registered."""

    @property
    def config(self) -> BaseModel:
        """The configuration that it was made from."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour."""

    async def start(self, spec: SandboxSpec, owner: str, name: str) -> Sandbox:
        """Start one sandbox; cancelling leaves nothing behind.

        Raises:
            BackendUnavailableError: Sandboxes cannot be started here at all.
            NoCapacityError: There is no room for it now; it is tried again while others are alive.
            SandboxLostError: This one did not come up.
        """

    async def list(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Find what an owner left, or what everyone has that this user may see.

        Works on a backend that was not entered, and starts nothing: it asks for no more than looking takes.

        Args:
            owner: Whose; None for everyone's.

        Raises:
            BackendUnavailableError: There is no way to look.
        """

    async def cleanup(self, owner: str | None = None) -> Sequence[SandboxInfo]:
        """Remove what dead owners left behind, and return it; what lives, or may be starting, is never touched.

        Like `list` it works on a backend that was not entered. What cannot be removed stays listed.

        Args:
            owner: Whose; None for everyone's.

        Raises:
            BackendUnavailableError: There is no way to look.
        """

    async def __aenter__(self) -> Self:
        """Get ready to start sandboxes.

        Raises:
            BackendUnavailableError: It cannot work here.
        """

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop every sandbox that was started and not stopped."""

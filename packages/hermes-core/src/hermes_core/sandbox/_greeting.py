"""Whether a sandbox answers, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_core.concurrency import background_tasks
from hermes_core.sandbox._client import SandboxClient

if TYPE_CHECKING:
    from hermes_core.sandbox._client import SandboxFacts
    from hermes_core.sandbox._protocol import Sandbox

__all__ = ["greet"]


async def greet(sandbox: Sandbox, *, reconnect_s: float = 10.0) -> SandboxFacts:
    """Ask a sandbox's daemon what it is, and leave nothing there.

    Args:
        sandbox: Whom to greet.
        reconnect_s: Seconds of failing to connect after which the sandbox counts as lost.

    Raises:
        SandboxLostError: It does not answer, or is gone.
        ProtocolError: Something else answers, or it refuses the token.
        BackendUnavailableError: TLS cannot be spoken with it.
    """
    client = SandboxClient(sandbox, reconnect_s=reconnect_s)
    async with background_tasks() as tasks:
        await tasks.start(client.run)
        await client.leave()
    return client.facts

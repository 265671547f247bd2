"""Finds and removes what is left on a machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hermes_backend_ssh import _scripts
from hermes_backend_ssh._connection import control_path
from hermes_backend_ssh._errors import place_error
from hermes_backend_ssh._processes import run_there
from hermes_core.sandbox import SandboxInfo
from hermes_sandboxd import upkeep_program

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hermes_backend_ssh._address import Address

__all__ = ["Upkeep"]


class Upkeep:
    """Looks after the folders of sandboxes there.

    Args:
        address: Of the machine.
        remote_dir: As in the configuration.
        control: Socket of the connection to use, if it is there; None for one of its own.
    """

    def __init__(self, address: Address, remote_dir: str | None, control: Path | None = None) -> None:
        self._address = address
        self._remote_dir = remote_dir
        self._control = control

    async def list(self, owner: str | None) -> Sequence[SandboxInfo]:
        """Return the sandboxes of an owner, or of everyone."""
        return await self._do("list", owner)

    async def clean(self, owner: str | None) -> Sequence[SandboxInfo]:
        """Remove what dead daemons left, an owner's or everyone's; return whose it was."""
        return await self._do("clean", owner)

    async def settle(self, title: str, pid: int | None) -> Sequence[SandboxInfo]:
        """Wait until a sandbox that was ended is gone, and remove what is left of it; return it if it stays.

        Args:
            title: Name of its folder.
            pid: A daemon that does not end by itself.
        """
        return await self._do("settle", title, None if pid is None else str(pid))

    async def _do(self, *words: str | None) -> Sequence[SandboxInfo]:
        script = _scripts.upkeep(self._remote_dir, [word for word in words if word is not None])
        done = await run_there(self._address, script, upkeep_program(), control=self._control or control_path())
        if done.status:
            raise place_error(done.said, self._address, "there is no looking after sandboxes")
        # A shell's configuration may have printed something before.
        rows = json.loads(done.output.splitlines()[-1]) if done.output.strip() else []
        return [SandboxInfo(name, owner, state, age_s) for name, owner, state, age_s in rows]

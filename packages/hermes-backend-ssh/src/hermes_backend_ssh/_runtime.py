"""The runtime folder on the machine: an interpreter, bubblewrap and the daemon, put there once."""

from __future__ import annotations

import io
import platform
import tarfile
import tempfile
import uuid
from functools import partial
from typing import IO, TYPE_CHECKING

from anyio import to_thread

from hermes_backend_ssh import _scripts
from hermes_backend_ssh._errors import place_error
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox.portable import runtime_of

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_backend_ssh._connection import Connection, Machine

__all__ = ["check_machine", "install"]

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def check_machine(machine: Machine, connection: Connection) -> None:
    """See that programs of this machine run on that one, and can be put there.

    Raises:
        BackendUnavailableError: They do not, or cannot.
    """
    here = platform.machine()
    if machine.system != "Linux" or ARCHITECTURES.get(machine.architecture, machine.architecture) != here:
        raise BackendUnavailableError(
            f"{connection.address} is {machine.system} on {machine.architecture}, and this machine is Linux on {here}",
            hint="run Hermes on a machine of the same kind: its own interpreter and bubblewrap are copied there",
        )
    if not machine.tar:
        raise BackendUnavailableError(f"there is no tar on {connection.address}", hint="install tar there")


async def install(connection: Connection, root: str, folder: Path) -> None:
    """See that the runtime folder is there, and put it there if it is not.

    Args:
        connection: To the machine.
        root: The folder there for everything.
        folder: The runtime folder on this machine, named for what is in it.

    Raises:
        BackendUnavailableError: It cannot be put there, or does not work there.
    """
    done = await connection.run(_scripts.prepare(root, folder.name))
    if done.status:
        raise place_error(done.said, connection.address, f"the folder {root} cannot be used")
    if done.output.split() == ["there"]:
        return
    with tempfile.TemporaryFile() as archive:
        await to_thread.run_sync(partial(_pack, folder, archive))
        done = await connection.run(_scripts.receive(root, folder.name, uuid.uuid4().hex[:12]), archive)
    if done.status:
        raise place_error(done.said, connection.address, f"Hermes cannot be put into {root}")


def _pack(folder: Path, archive: IO[bytes]) -> None:
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=_anonymous)
        # The last one: whoever has it has everything.
        script = _start_script(folder).encode()
        member = tarfile.TarInfo(_scripts.START)
        member.size, member.mode = len(script), 0o755
        tar.addfile(member, io.BytesIO(script))
    archive.seek(0)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _start_script(folder: Path) -> str:
    """Return the script that starts the interpreter, wherever the folder is."""
    *command, _ = runtime_of(folder, "$d").arguments
    words = " ".join(f'"{word}"' for word in command)
    return f'#!/bin/sh\nd=$(cd "$(dirname "$0")" && pwd)\nexec {words} "$@"\n'

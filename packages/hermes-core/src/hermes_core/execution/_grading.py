"""How a scorer looks at what an agent left."""

from __future__ import annotations

import io
import tarfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hermes_core.exceptions import UsageError
from hermes_core.execution._result import ExecResult, exec_result
from hermes_core.sandbox import MAX_FILE_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hermes_core.execution._gate import Gate
    from hermes_core.sandbox import OpenedSlot, SlotClient

__all__ = ["Grading", "tar_of"]

EXECUTABLE, READABLE = 0o755, 0o644


class Grading:
    """Runs a scorer's commands over an agent's workspace, where nothing of the agent runs any more (`Slot.grade`).

    The workspace is still what the agent made of it: do not run from it what decides about the reward, and do not
    believe what a program prints that the agent wrote or could replace. What is beyond the agent: `files`, `python`,
    exit codes, and the `report` of a command that gives its descriptor 3 to nobody.

    Args:
        client: Speaks about the slot.
        opened: What it is like now.
        gate: Its turn.
    """

    def __init__(self, client: SlotClient, opened: OpenedSlot, gate: Gate) -> None:
        self._client = client
        self._gate = gate
        self._opened = opened

    @property
    def files(self) -> str:
        """The folder of the grader's files, as seen from inside; commands run there unless they say otherwise."""
        return self._opened.files or "/"

    @property
    def workspace(self) -> str:
        """The agent's workspace, as seen from inside."""
        return self._opened.workspace

    @property
    def python(self) -> str:
        """An interpreter that the agent could not change. Give it `-I`, so that it takes nothing from the workspace.

        Raises:
            UsageError: The sandbox has none.
        """
        if self._opened.python is None:
            raise UsageError("the sandbox has no Python of its own to grade with", hint="use an image with python3")
        return self._opened.python

    async def exec(
        self,
        command: str | Sequence[str],
        *,
        timeout_s: float = 60.0,
        stdin: bytes | str = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        cpu_s: float | None = None,
        output_bytes: int | None = None,
    ) -> ExecResult:
        """Run one command and wait for its end; arguments and errors as of `Slot.exec`.

        Returns:
            What happened. `report` is what the command wrote to its descriptor 3, kept as its output is.
        """
        await self._gate.enter()
        try:
            outcome = await self._client.exec(
                ("/bin/sh", "-c", command) if isinstance(command, str) else command,
                timeout_s=timeout_s,
                stdin=stdin.encode() if isinstance(stdin, str) else stdin,
                env=env,
                cwd=cwd or self.files,
                cpu_s=cpu_s,
                output_cap=output_bytes,
                report=True,
            )
        finally:
            self._gate.leave()
        return exec_result(outcome)

    async def read_file(self, path: str, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read a regular file; arguments and errors as of `Slot.read_file`."""
        await self._gate.enter()
        try:
            return (await self._client.read(path, max_bytes=max_bytes)).data
        finally:
            self._gate.leave()


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    """Return an uncompressed tar of files; one that begins with `#!` can be executed.

    Raises:
        UsageError: A path is absolute or leads upwards.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            parts = PurePosixPath(path).parts
            if not parts or path.startswith("/") or ".." in parts:
                raise UsageError(f"{path!r} is not a path below the folder of the grader's files")
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo("/".join(parts))
            member.size = len(data)
            member.mode = EXECUTABLE if data.startswith(b"#!") else READABLE
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()

"""The driver raw_exec: a process in a session of its own, below a wrapper that outlives the agent."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .drivers import DriverError, Exit, Task

if TYPE_CHECKING:
    from .documents import Doc

__all__ = ["RawExec", "ended", "started_at"]

WRAPPER = Path(__file__).with_name("task_wrapper.py")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def started_at(pid: int) -> str | None:
    """Return when a process started, which with its pid identifies it; `None` if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


async def ended(pid: int) -> None:
    """Wait until a process, which need not be a child, has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def find_binary(command: str, folder: Path) -> str:
    """Find the command in the task's folder or on the search path."""
    for candidate in (folder / "local" / command, folder / command):
        if candidate.is_file():
            return str(candidate)
    found = shutil.which(command, path=os.environ.get("PATH", SEARCH))
    if found is None:
        said = f'binary "{command}" could not be found'
        raise DriverError(
            f"failed to launch command with executor: rpc error: code = Unknown desc = {said}", recoverable=True
        )
    return found


def find_user(name: str) -> tuple[int, int, list[int]] | None:
    """Look up the ids of a task's user; `None` means the agent's own."""
    if not name:
        return None
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise DriverError(
            f'failed driver config validation: failed to identify user "{name}": user: unknown user {name}'
        ) from None
    groups = [group.gr_gid for group in grp.getgrall() if entry.pw_name in group.gr_mem]
    return entry.pw_uid, entry.pw_gid, [*groups, entry.pw_gid]


class RawExec:
    """Starts processes."""

    isolated = False

    def __init__(self) -> None:
        self._wrappers: dict[int, subprocess.Popen[str]] = {}

    async def prepare(self, task: Task) -> None:
        """There is nothing to prepare."""

    async def start(self, task: Task) -> Doc:
        """Start the wrapper and wait for its word."""
        config = task.config
        spec = {
            "user": find_user(task.user),
            "binary": find_binary(str(config["command"]), task.folder.root),
            "arguments": [str(config["command"]), *map(str, config.get("args") or ())],
            "environment": task.environment,
            "folder": str(config.get("work_dir") or task.folder.root),
            **{kind: str(task.folder.log(kind)) for kind in ("stdout", "stderr")},
            "exit": str(task.folder.root / "private" / "exit"),
        }
        Path(str(spec["exit"])).unlink(missing_ok=True)
        file = task.folder.root / "private" / "task.json"
        file.touch(0o600)
        file.write_text(json.dumps(spec))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WRAPPER), str(file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout as output:
            said: Doc = json.loads(await asyncio.to_thread(output.readline) or '{"error": "the wrapper has ended"}')
        file.unlink()
        if "error" in said:
            process.wait()
            raise DriverError(
                "failed to launch command with executor: rpc error: code = Unknown desc = "
                f"failed to start command path={spec['binary']!r} --- args={spec['arguments']!r}: {said['error']}",
                recoverable=True,
            )
        self._wrappers[process.pid] = process
        return {
            **{"wrapper": process.pid, "started": started_at(process.pid), "pid": said["pid"], "exit": spec["exit"]},
        }

    async def recover(self, handle: Doc) -> bool:
        """Tell whether the wrapper is still there, or has written how the task ended."""
        return started_at(handle["wrapper"]) == handle["started"] or Path(handle["exit"]).exists()

    async def wait(self, handle: Doc) -> Exit:
        """Wait for the wrapper's end."""
        if started_at(handle["wrapper"]) == handle["started"]:
            await ended(handle["wrapper"])
        if (process := self._wrappers.pop(handle["wrapper"], None)) is not None:
            process.wait()
        try:
            end = json.loads(Path(handle["exit"]).read_text())
        except OSError:
            return Exit(137, 9, "executor: error waiting on process: the executor has ended")
        return Exit(end["code"], end["signal"])

    async def stop(self, handle: Doc, signal: str, seconds: float) -> None:
        """Ask the task's first process to end, and kill all of them after that."""
        if not self._running(handle):
            return
        send(handle["pid"], signal)
        try:
            async with asyncio.timeout(seconds):
                await ended(handle["wrapper"])
        except TimeoutError:
            if self._running(handle):
                send(handle["wrapper"], "SIGUSR1")
                await ended(handle["wrapper"])

    async def vanish(self, handle: Doc) -> None:
        """Kill everything."""
        if self._running(handle):
            send(handle["wrapper"], "SIGUSR1")
            await ended(handle["wrapper"])

    async def remove(self, handle: Doc, logs: dict[str, Path]) -> None:
        """There is nothing to do: the output is in its files."""

    async def read_logs(self, handle: Doc, kind: str, file: Path) -> bytes:
        """Read the file."""
        return file.read_bytes() if file.exists() else b""

    def _running(self, handle: Doc) -> bool:
        return started_at(handle["wrapper"]) == str(handle["started"])


def send(pid: int, name: str) -> None:
    """Send a signal by its name."""
    with suppress(ProcessLookupError):
        os.kill(pid, getattr(signal, name))

"""Converts an image of this machine's Docker engine into a `.sif` file, once for all who want it."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from hermes_backend_nomad._reach import closed_to, make_open
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["converted"]

PAUSE_S = 0.1
LONGEST_COMPLAINT = 16384
UNFINISHED = ".unfinished-"
ELSEWHERE = "HERMES_CACHE=FOLDER names another place"
KEEPER = '"$@"; exit $?'
"""Waits for the engine, and holds the lock, which the engine itself does not keep."""

_logger = logging.getLogger(__name__)


def images_folder() -> Path:
    """`nomad-images` under `$HERMES_CACHE`, `$XDG_CACHE_HOME/hermes` or `~/.cache/hermes`."""
    if own := os.environ.get("HERMES_CACHE"):
        return Path(own).expanduser().absolute() / "nomad-images"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache").absolute() / "hermes" / "nomad-images"


async def converted(tag: str, identity: str, *, executable: str, user: str | None) -> Path:
    """Return the `.sif` file of a Docker image; it is made if it is not there.

    Args:
        tag: What the image is called, for messages.
        identity: Its id, by which the file is named and found.
        executable: Apptainer's program.
        user: Who must be able to read the file; None for nobody else.

    Raises:
        BackendUnavailableError: It cannot be converted, or that user could not read it.
    """
    folder = images_folder()
    with _kept_in(folder):
        await to_thread.run_sync(_prepare, folder, user)
        target = folder / f"{identity.removeprefix('sha256:')}.sif"
        if not target.exists():
            async with _locked(target.with_suffix(".lock")) as lock:
                if not target.exists():
                    await _make(tag, identity, target, lock, executable)
    return target


async def _make(tag: str, identity: str, target: Path, lock: int, executable: str) -> None:
    program = shutil.which(executable)
    if program is None:
        raise BackendUnavailableError(
            f"image {tag} cannot be converted: {executable} cannot be run here",
            hint="install Apptainer, or give a file that the nodes have: -B image=/FOLDER/FILE.sif",
        )
    _logger.warning("image %s is being converted for Apptainer, which takes a while", tag)
    for left in target.parent.glob(f"{target.stem}{UNFINISHED}*"):  # by whoever was killed
        await to_thread.run_sync(_remove, left)
    # The engine keeps temporary files, which it leaves behind when it is killed.
    work = Path(tempfile.mkdtemp(prefix=f"{target.stem}{UNFINISHED}", dir=target.parent))
    try:
        unfinished = work / "image.sif"
        command = [program, "--silent", "--nocolor", "build", str(unfinished), f"docker-daemon:{identity}"]
        if (complaint := await _run(command, work, lock)) is not None:
            raise BackendUnavailableError(
                f"image {tag} cannot be converted: {complaint}",
                hint=f"apptainer build FILE.sif docker-daemon:{tag} shows more; or -B image=/FOLDER/FILE.sif",
            )
        await to_thread.run_sync(_finish, unfinished, target)
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_remove, work)


async def _run(command: list[str], temporary: Path, lock: int) -> str | None:
    """Run the engine; return what it complained about if it failed."""
    with anyio.CancelScope(shield=True):  # it takes no time, and half a start could not be ended
        process = await anyio.open_process(
            ["/bin/sh", "-c", KEEPER, "hermes-image", *command],
            stdin=DEVNULL,
            stdout=DEVNULL,
            env={**os.environ, "APPTAINER_TMPDIR": str(temporary), "SINGULARITY_TMPDIR": str(temporary)},
            start_new_session=True,
            pass_fds=(lock,),
        )
    said = b""
    try:
        assert process.stderr is not None
        async for chunk in process.stderr:
            said = (said + chunk)[-LONGEST_COMPLAINT:]
        if await process.wait() == 0:
            return None
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()
    lines = said.decode(errors="replace").split("\n")
    return next((line.strip().removeprefix("FATAL:").strip() for line in reversed(lines) if line.strip()), "no reason")


def _finish(unfinished: Path, target: Path) -> None:
    """Give a file its name, whole, on the disk, and readable for everybody."""
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.chmod(0o644)
    unfinished.rename(target)


def _remove(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)  # an unpacked image has folders that their owner may not change
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendUnavailableError(
            f"images cannot be kept in {folder}: {error.strerror or error}", hint=ELSEWHERE
        ) from error


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[int]:
    """Be the only one, as soon as nobody else is; the file stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        while not _try_lock(descriptor):  # noqa: ASYNC110 - of locks of others there are no events
            await anyio.sleep(PAUSE_S)
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _prepare(folder: Path, user: str | None) -> None:
    """Make the folder, and see that a user of this machine gets as far as that."""
    make_open(folder)
    if user is None:
        return
    try:
        closed = closed_to(user, folder)
    except KeyError:
        raise BackendUnavailableError(
            f"there is no user {user} on this machine, who could read an image of it",
            hint="-B user=NAME names one, or -B image=/FOLDER/FILE.sif a file that the nodes have",
        ) from None
    if closed is not None:
        raise BackendUnavailableError(
            f"user {user}, who runs the containers, cannot read images in {folder}: {closed} is closed to others",
            hint=ELSEWHERE,
        )

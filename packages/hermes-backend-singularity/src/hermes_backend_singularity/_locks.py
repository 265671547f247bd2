"""Locks on files, which the kernel lets go of when their holder dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import anyio

from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["try_lock", "wait_lock"]

PAUSE_S = 0.1


def try_lock(path: Path, *, shared: bool = False) -> int | None:
    """Lock a file, which is made if it is not there; return the descriptor that holds the lock, or None.

    Raises:
        BackendUnavailableError: Nothing can be locked there.
    """
    try:
        return _try_lock(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        raise BackendUnavailableError(
            f"{path} cannot be locked: {error.strerror}",
            hint="choose a folder on a file system with locks: -B scratch_dir=FOLDER, -B cache_dir=FOLDER",
        ) from error


def _try_lock(path: Path, operation: int) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was removed meanwhile, and means nothing to anybody else


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


async def wait_lock(path: Path, *, shared: bool = False) -> int:
    """Lock a file as `try_lock` does, as soon as nobody else holds it."""
    while (descriptor := try_lock(path, shared=shared)) is None:  # noqa: ASYNC110 - of locks of others there are no events
        await anyio.sleep(PAUSE_S)
    return descriptor

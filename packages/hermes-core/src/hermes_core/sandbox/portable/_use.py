"""Who uses a runtime folder, and when it was last used."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from hermes_sandboxd import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["claimed", "hold", "last_used"]

_held: dict[Path, int] = {}
"""Descriptors with a lock each, which the kernel lets go of with this process."""


def hold(folder: Path) -> bool:
    """Take note that a folder is used, from now until this process ends; False if it is not there."""
    path = folder / MANIFEST
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    with suppress(OSError):  # who cannot lock here cannot claim it either
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    if not _is_still(path, descriptor):
        os.close(descriptor)
        return False
    with suppress(OSError):  # somebody else's
        os.utime(descriptor)
    if folder in _held:
        os.close(_held[folder])
    _held[folder] = descriptor
    return True


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Keep others from using a folder; false if somebody uses it, or if that cannot be told."""
    try:
        # For writing, without which a network file system gives no such lock.
        descriptor = os.open(folder / MANIFEST, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def last_used(folder: Path) -> float:
    """Return when somebody began to use a folder last, in seconds of the epoch.

    Raises:
        OSError: It is not there.
    """
    return (folder / MANIFEST).stat().st_mtime


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether an open file has its name still."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

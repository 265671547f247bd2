"""Folders and files of the host on their way into a slot, and back.

What comes back was made by an agent, and is unpacked with the rights of whoever runs this: the whole archive is looked
at first, and nothing has its final name before everything is there.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import SlotFileError, UsageError
from hermes_sandboxd import Refusal, check_archive, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hermes_core.sandbox import Archive

__all__ = ["Parcel", "Transferred", "put_down", "take_up"]

_GIVEN = 0o755
_KEPT = 0o700


@dataclass(frozen=True, slots=True)
class Transferred:
    """What was uploaded or downloaded.

    Attributes:
        entries: Files, folders and links.
        size: Bytes of all files together.
        skipped: What cannot be transferred and was left out: FIFOs, sockets, devices.
    """

    entries: int
    size: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file or folder of the host, ready to be sent.

    Attributes:
        data: The file's content, or the folder's as tar.gz.
        mode: The file's permission bits; None for a folder.
        transferred: What is in it.
    """

    data: memoryview
    mode: int | None
    transferred: Transferred


def take_up(local: Path, max_bytes: int, max_entries: int) -> Parcel:
    """Read a file, or pack a folder, of the host.

    Raises:
        UsageError: It is not there, cannot be read, is too large, or holds a link that leads outside.
    """
    with _unusable(local):
        path = local.resolve(strict=True)
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            if status.st_size > max_bytes:
                raise UsageError(f"{local}: {status.st_size} bytes, over the limit of {max_bytes}")
            data = path.read_bytes()
            return Parcel(memoryview(data), stat.S_IMODE(status.st_mode) & 0o777, Transferred(1, len(data), 0))
        packed = bytearray()
        done = pack(str(path), packed.extend, max_bytes=max_bytes, max_entries=max_entries, links_inside=True)
        return Parcel(memoryview(packed), None, Transferred(done.entries, done.size, done.skipped))


def put_down(archive: Archive, local: Path, max_bytes: int, max_entries: int) -> Transferred:
    """Unpack what an agent has made, under the name `local`.

    A file replaces a file there; a folder needs a name that is free, or an empty folder's. The owner can always read
    and write what comes, others can at most read it.

    Raises:
        SlotFileError: The archive is hostile (`bad_archive`) or too large.
        UsageError: It cannot be written there.
    """
    if archive.kind == "folder" and local.is_dir() and any(local.iterdir()):
        raise UsageError(f"{local}: there is a folder with something in it", hint="download to a new name")
    if archive.kind == "file" and local.is_dir():
        raise UsageError(f"{local}: is a folder", hint="name the file that the download shall become")
    name = _check(archive, max_bytes, max_entries)
    with _unusable(local):
        local.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.mkdtemp(prefix=f".{local.name[:100]}-", dir=local.parent)
        try:
            content = os.path.join(beside, "content")
            os.mkdir(content)
            folder = os.open(content, os.O_RDONLY | os.O_DIRECTORY)
            try:
                limits = {"max_bytes": max_bytes, "max_entries": max_entries}
                unpack(BytesIO(archive.data), folder, keep=_KEPT, give=_GIVEN, **limits)
            finally:
                os.close(folder)
            os.replace(os.path.join(os.fsencode(content), name) if name else content, local)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return Transferred(archive.entries, archive.size, archive.skipped)


def _check(archive: Archive, max_bytes: int, max_entries: int) -> bytes:
    """See that nothing bad is in an archive; return the name of the only file in it if it is one of a file."""
    try:
        contents = check_archive(BytesIO(archive.data), max_bytes, max_entries)
    except Refusal as error:
        raise SlotFileError(
            error.message, kind=error.kind, hint="Slot.archive brings it as it is, without unpacking"
        ) from None
    if archive.kind == "folder":
        return b""
    if list(contents.tree.values()) != ["file"]:
        raise SlotFileError("the archive of a file holds something else", kind="bad_archive")
    return next(iter(contents.tree))


@contextmanager
def _unusable(local: Path) -> Iterator[None]:
    """Turn what is wrong on the host into usage errors: no agent is to blame for it."""
    try:
        yield
    except Refusal as error:
        raise UsageError(error.message) from None
    except OSError as error:
        raise UsageError(f"{local}: {error.strerror or error}") from None

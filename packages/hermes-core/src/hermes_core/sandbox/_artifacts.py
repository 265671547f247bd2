"""What a slot's files are listed, packed and unpacked as."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from hermes_core.exceptions import ProtocolError

__all__ = ["MAX_ENTRIES", "Archive", "Entry", "EntryKind", "Extracted", "Listing", "read_entries"]

MAX_ENTRIES = 100_000
"""Default cap on the files, folders and links of a listing or an archive."""

EntryKind = Literal["file", "folder", "link", "other"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in a folder.

    Attributes:
        path: Relative to the folder that was listed; what is not UTF-8 in it is replaced by U+FFFD.
        kind: What it is; `other` is a FIFO, a socket or a device.
        size: Bytes of a file; 0 for everything else.
        mtime: When its content changed last, in seconds since 1970.
    """

    path: str
    kind: EntryKind
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in a folder: each folder before what is in it, names in the order of their bytes.

    Attributes:
        entries: What was found.
        truncated: There is more than was asked for, or so deep that no path leads there.
        unreadable: Folders that could not be looked into.
    """

    entries: tuple[Entry, ...]
    truncated: bool
    unreadable: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A folder's content, or one file, as tar.gz.

    Attributes:
        data: The archive.
        kind: What was packed.
        entries: Files, folders and links in it.
        size: Bytes of all files together.
        skipped: What an archive cannot hold and was left out: FIFOs, sockets, devices.
        shortened: Files that became shorter while they were read; zeros fill their place.
    """

    data: bytes = field(repr=False)
    kind: Literal["file", "folder"]
    entries: int
    size: int
    skipped: int
    shortened: int


@dataclass(frozen=True, slots=True)
class Extracted:
    """What an archive was unpacked to.

    Attributes:
        entries: Files, folders and links.
        size: Bytes of all files together.
    """

    entries: int
    size: int


def read_entries(data: bytes) -> tuple[Entry, ...]:
    """Return the entries of a listing as the daemon sends them.

    Raises:
        ProtocolError: They are not what the protocol says.
    """
    try:
        return tuple(Entry(*json.loads(line)) for line in data.splitlines())
    except (ValueError, TypeError) as error:
        raise ProtocolError(f"the sandbox daemon sent a listing that cannot be read: {error}") from None

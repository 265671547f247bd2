"""Artifacts as the HTTP services hand them out: fields, names and caps that their users know.

What an agent's files are like is told in the reply; an error that is not about them is raised.
"""

from __future__ import annotations

import base64
import mimetypes
from typing import TYPE_CHECKING, Literal, TypedDict

from hermes_core.exceptions import LeaseStateError, SlotFileError, UsageError

if TYPE_CHECKING:
    from hermes_core.execution._slot import Slot
    from hermes_core.sandbox import Entry

__all__ = [
    "ArtifactArchive",
    "ArtifactContent",
    "ArtifactEntry",
    "ArtifactListing",
    "archive_artifact",
    "list_artifacts",
    "read_artifact",
]

ARTIFACT_BYTES = 5_000_000
ARTIFACT_ENTRIES = 5_000


class ArtifactContent(TypedDict):
    """A file, or its beginning; `bytes` counts what is in `content`, `file_size` what is in the file."""

    success: bool
    content: str
    encoding: str
    truncated: bool
    bytes: int
    file_size: int
    path: str
    mime: str | None
    sha256: str | None
    error: str | None


class ArtifactEntry(TypedDict):
    """Something in a folder; `path` is relative to it."""

    path: str
    is_dir: bool
    size: int
    mtime: float


class ArtifactListing(TypedDict):
    """What is in a folder."""

    success: bool
    entries: list[ArtifactEntry]
    truncated: bool
    error: str | None


class ArtifactArchive(TypedDict):
    """A folder or a file as tar.gz; `content` is base64, `bytes` the archive's size before that."""

    success: bool
    content: str
    format: str
    bytes: int
    entry_count: int
    error: str | None


async def read_artifact(
    slot: Slot,
    path: str,
    *,
    encoding: Literal["text", "base64"] = "text",
    max_bytes: int = ARTIFACT_BYTES,
    include_sha256: bool = False,
) -> ArtifactContent:
    """Read a file, or its beginning if it is larger than `max_bytes`.

    Args:
        slot: Where it is.
        path: Absolute, or relative to the workspace.
        encoding: `text` is UTF-8 with replacement.
        max_bytes: How much to read at most.
        include_sha256: Whether to tell the digest of the whole file.

    Raises:
        SlotDeadError: The slot died.
        SandboxError: The sandbox is gone.
        LeaseStateError: The lease has ended.
    """
    reply = ArtifactContent(
        success=False,
        content="",
        encoding=encoding,
        truncated=False,
        bytes=0,
        file_size=0,
        path=path,
        mime=mimetypes.guess_type(path)[0],
        sha256=None,
        error=None,
    )
    if encoding not in ("text", "base64"):
        reply["error"] = f"unknown encoding {encoding!r}: text or base64"
        return reply
    try:
        found = await slot.read_part(path, length=max_bytes, max_bytes=max_bytes, sha256=include_sha256)
    except LeaseStateError:
        raise
    except (SlotFileError, UsageError) as error:
        reply["error"] = error.message
        return reply
    text = encoding == "text"
    reply["content"] = found.data.decode("utf-8", "replace") if text else base64.b64encode(found.data).decode()
    reply["success"] = True
    reply["truncated"] = len(found.data) < found.size
    reply["bytes"] = len(found.data)
    reply["file_size"] = found.size
    reply["sha256"] = found.sha256
    return reply


async def list_artifacts(
    slot: Slot, path: str = ".", *, recursive: bool = True, max_entries: int = ARTIFACT_ENTRIES
) -> ArtifactListing:
    """List a folder.

    Args:
        slot: Where it is.
        path: Absolute, or relative to the workspace.
        recursive: Whether to list what is in the folders below, too.
        max_entries: How many entries to return at most.

    Raises:
        SlotDeadError: The slot died.
        SandboxError: The sandbox is gone.
        LeaseStateError: The lease has ended.
    """
    try:
        listing = await slot.list_files(path, recursive=recursive, max_entries=max_entries)
    except LeaseStateError:
        raise
    except (SlotFileError, UsageError) as error:
        return ArtifactListing(success=False, entries=[], truncated=False, error=error.message)
    return ArtifactListing(
        success=True, entries=[_entry(entry) for entry in listing.entries], truncated=listing.truncated, error=None
    )


def _entry(entry: Entry) -> ArtifactEntry:
    return ArtifactEntry(path=entry.path, is_dir=entry.kind == "folder", size=entry.size, mtime=entry.mtime)


async def archive_artifact(
    slot: Slot,
    path: str = ".",
    *,
    format: Literal["tar.gz", "tgz"] = "tar.gz",
    max_bytes: int = ARTIFACT_BYTES,
    max_entries: int = ARTIFACT_ENTRIES,
) -> ArtifactArchive:
    """Pack a folder's content, or a file.

    Args:
        slot: Where it is.
        path: Absolute, or relative to the workspace.
        format: Both names mean the same.
        max_bytes: Most bytes of all files together, and of the archive.
        max_entries: Most files, folders and links.

    Raises:
        SlotDeadError: The slot died.
        SandboxError: The sandbox is gone.
        LeaseStateError: The lease has ended.
    """
    reply = ArtifactArchive(success=False, content="", format=format, bytes=0, entry_count=0, error=None)
    if format not in ("tar.gz", "tgz"):
        reply["error"] = f"unknown format {format!r}: tar.gz or tgz"
        return reply
    try:
        archive = await slot.pack(path, max_bytes=max_bytes, max_entries=max_entries)
    except LeaseStateError:
        raise
    except (SlotFileError, UsageError) as error:
        reply["error"] = error.message
        return reply
    if len(archive.data) > max_bytes:
        reply["error"] = f"{path}: an archive of {len(archive.data)} bytes, over the limit of {max_bytes}"
        return reply
    reply["success"] = True
    reply["content"] = base64.b64encode(archive.data).decode()
    reply["bytes"] = len(archive.data)
    reply["entry_count"] = archive.entries
    return reply

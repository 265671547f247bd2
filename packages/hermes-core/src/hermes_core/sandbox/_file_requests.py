"""Requests about the files of a slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

from hermes_core.sandbox._artifacts import MAX_ENTRIES, Archive, Extracted, Listing, read_entries
from hermes_core.sandbox._slot_requests import SlotRequests, joined

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_FILE_BYTES", "FileContent", "FileRequests"]

MAX_FILE_BYTES = 256 << 20
"""Default cap on a file that is read or written."""

PARSE_IN_THREAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file, or a part of one.

    Attributes:
        data: Its bytes.
        size: Bytes of the whole file.
        sha256: Of the whole file in hexadecimal, if asked for.
    """

    data: bytes = field(repr=False)
    size: int
    sha256: str | None


class FileRequests(SlotRequests):
    """Reads, writes, lists, packs and unpacks files."""

    async def read(
        self,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        max_bytes: int = MAX_FILE_BYTES,
        sha256: bool = False,
    ) -> FileContent:
        """Read a regular file.

        Args:
            path: Absolute, or relative to the workspace.
            offset: First byte to read.
            length: How many bytes to read; None for all that follow.
            max_bytes: Refuse to read more than this.
            sha256: Ask for the digest of the whole file.

        Raises:
            SlotFileError: It cannot be read; `kind` says why.
        """
        params = {
            "slot": self.index,
            "path": path,
            "offset": offset,
            "length": length,
            "max_bytes": max_bytes,
            "sha256": sha256,
        }
        exchange = await self._client.request("slot.read", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        return FileContent(await joined(exchange.bodies()["content"]), result["size"], result.get("sha256"))

    async def write(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        mode: int = 0o644,
        parents: bool = True,
        max_bytes: int = MAX_FILE_BYTES,
    ) -> int:
        """Write a regular file, replacing what was there; return its size in bytes.

        Args:
            path: Absolute, or relative to the workspace.
            data: What to write.
            mode: Its permission bits.
            parents: Make missing folders on the way.
            max_bytes: Refuse to write more than this.

        Raises:
            SlotFileError: It cannot be written; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "mode": mode, "parents": parents, "max_bytes": max_bytes}
        exchange = await self._client.request("slot.write", params, slot=self.index, body=data)
        return int(cast("Mapping[str, Any]", exchange.result)["size"])

    async def list(self, path: str, *, recursive: bool = True, max_entries: int = MAX_ENTRIES) -> Listing:
        """List a folder, following no link; what is no folder is listed alone.

        Args:
            path: Absolute, or relative to the workspace.
            recursive: Whether to list what is in the folders below, too.
            max_entries: How many entries to return at most.

        Raises:
            SlotFileError: It cannot be listed; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "recursive": recursive, "max_entries": max_entries}
        exchange = await self._client.request("slot.list", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        data = await joined(exchange.bodies()["entries"])
        if len(data) <= PARSE_IN_THREAD_BYTES:
            entries = read_entries(data)
        else:
            entries = await to_thread.run_sync(read_entries, data)
        return Listing(entries, result["truncated"], result["unreadable"])

    async def archive(self, path: str, *, max_bytes: int = MAX_FILE_BYTES, max_entries: int = MAX_ENTRIES) -> Archive:
        """Pack a folder's content, or a file, following no link.

        Args:
            path: Absolute, or relative to the workspace.
            max_bytes: Refuse more bytes than this of all files together.
            max_entries: Refuse more files, folders and links.

        Raises:
            SlotFileError: It cannot be packed; `kind` says why.
        """
        params = {"slot": self.index, "path": path, "max_bytes": max_bytes, "max_entries": max_entries}
        exchange = await self._client.request("slot.archive", params, slot=self.index)
        result = cast("Mapping[str, Any]", exchange.result)
        return Archive(
            await joined(exchange.bodies()["content"]),
            result["kind"],
            result["entries"],
            result["size"],
            result["skipped"],
            result["shortened"],
        )

    async def extract(
        self,
        path: str,
        data: bytes | memoryview,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Extracted:
        """Unpack a tar archive, compressed with gzip or not, to a folder, which is made if it is missing.

        Args:
            path: Absolute, or relative to the workspace.
            data: The archive.
            max_bytes: Refuse to write more bytes than this.
            max_entries: Refuse to make more files, folders and links.

        Raises:
            SlotFileError: It cannot be unpacked; `kind` says why. Nothing was written if that is `bad_archive`,
                `too_large` or `is_directory`.
        """
        params = {"slot": self.index, "path": path, "max_bytes": max_bytes, "max_entries": max_entries}
        exchange = await self._client.request("slot.extract", params, slot=self.index, body=data)
        result = cast("Mapping[str, Any]", exchange.result)
        return Extracted(result["entries"], result["size"])

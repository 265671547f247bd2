"""What can be done with the files of a slot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from hermes_core.execution._transfer import Transferred, put_down, take_up
from hermes_core.sandbox import MAX_ENTRIES, MAX_FILE_BYTES

if TYPE_CHECKING:
    import os
    from contextlib import AbstractAsyncContextManager

    from hermes_core.sandbox import Archive, Extracted, FileContent, Listing, SlotClient

__all__ = ["SlotFiles"]


class SlotFiles:
    """The part of `Slot` that is about files: paths are absolute, or relative to the workspace."""

    def _turn(self) -> AbstractAsyncContextManager[SlotClient]:
        """Wait until nothing else runs in the slot, and keep it so."""
        raise NotImplementedError

    async def write_file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """Write a regular file, replacing what was there and making missing folders on the way.

        Args:
            path: Absolute, or relative to the workspace.
            data: What to write; text as UTF-8.
            mode: Its permission bits.

        Raises:
            SlotFileError: It cannot be written; `kind` says why.
        """
        async with self._turn() as client:
            await client.write(path, data.encode() if isinstance(data, str) else data, mode=mode)

    async def read_file(self, path: str, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
        """Read a regular file.

        Args:
            path: Absolute, or relative to the workspace.
            max_bytes: Refuse to read more than this.

        Raises:
            SlotFileError: It cannot be read; `kind` says why.
        """
        return (await self.read_part(path, max_bytes=max_bytes)).data

    async def read_part(
        self,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
        max_bytes: int = MAX_FILE_BYTES,
        sha256: bool = False,
    ) -> FileContent:
        """Read a regular file, or a part of it, and learn its size.

        Args:
            path: Absolute, or relative to the workspace.
            offset: First byte to read.
            length: How many bytes to read; None for all that follow.
            max_bytes: Refuse to read more than this.
            sha256: Ask for the digest of the whole file.

        Raises:
            SlotFileError: It cannot be read; `kind` says why.
        """
        async with self._turn() as client:
            return await client.read(path, offset=offset, length=length, max_bytes=max_bytes, sha256=sha256)

    async def list_files(self, path: str = ".", *, recursive: bool = True, max_entries: int = MAX_ENTRIES) -> Listing:
        """List a folder, following no link; what is no folder is listed alone.

        Args:
            path: Absolute, or relative to the workspace.
            recursive: Whether to list what is in the folders below, too.
            max_entries: How many entries to return at most; the listing says if there are more.

        Raises:
            SlotFileError: It cannot be listed; `kind` says why.
        """
        async with self._turn() as client:
            return await client.list(path, recursive=recursive, max_entries=max_entries)

    async def archive(
        self, path: str = ".", *, max_bytes: int = MAX_FILE_BYTES, max_entries: int = MAX_ENTRIES
    ) -> bytes:
        """Return a folder's content, or a file, as tar.gz; options and errors as of `pack`."""
        return (await self.pack(path, max_bytes=max_bytes, max_entries=max_entries)).data

    async def pack(
        self, path: str = ".", *, max_bytes: int = MAX_FILE_BYTES, max_entries: int = MAX_ENTRIES
    ) -> Archive:
        """Pack a folder's content, or a file, following no link, and learn what is in the archive.

        An agent made the content: look at an archive before unpacking it, or use `download`, which does.

        Args:
            path: Absolute, or relative to the workspace.
            max_bytes: Refuse more bytes than this of all files together.
            max_entries: Refuse more files, folders and links.

        Raises:
            SlotFileError: It cannot be packed; `kind` says why.
        """
        async with self._turn() as client:
            return await client.archive(path, max_bytes=max_bytes, max_entries=max_entries)

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
            SlotFileError: It cannot be unpacked; `kind` says why. A hostile archive is refused whole.
        """
        async with self._turn() as client:
            return await client.extract(path, data, max_bytes=max_bytes, max_entries=max_entries)

    async def upload(
        self,
        local: str | os.PathLike[str],
        remote: str,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Transferred:
        """Copy a file, or a folder's content, of this machine into the slot.

        Args:
            local: What to copy. Links in a folder stay links, and may not lead out of it.
            remote: The file or folder that it becomes; missing folders on the way are made.
            max_bytes: Refuse more bytes than this.
            max_entries: Refuse more files, folders and links.

        Raises:
            UsageError: It cannot be read here.
            SlotFileError: It cannot be written there; `kind` says why.
        """
        parcel = await to_thread.run_sync(take_up, Path(local), max_bytes, max_entries)
        if parcel.mode is None:
            await self.extract(remote, parcel.data, max_bytes=max_bytes, max_entries=max_entries)
        else:
            async with self._turn() as client:
                await client.write(remote, parcel.data, mode=parcel.mode, max_bytes=max_bytes)
        return parcel.transferred

    async def download(
        self,
        remote: str,
        local: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_FILE_BYTES,
        max_entries: int = MAX_ENTRIES,
    ) -> Transferred:
        """Copy a file, or a folder's content, of the slot to this machine, where it appears whole or not at all.

        Args:
            remote: What to copy. Links in a folder stay links; one that may lead out of it is refused.
            local: The file or folder that it becomes: a file replaces a file, a folder needs a new name or an empty
                folder. The owner gets the right to read and write everything, others at most to read.
            max_bytes: Refuse more bytes than this.
            max_entries: Refuse more files, folders and links.

        Raises:
            SlotFileError: It cannot be read there; `kind` says why, `bad_archive` if it could do harm here.
            UsageError: It cannot be written here.
        """
        archive = await self.pack(remote, max_bytes=max_bytes, max_entries=max_entries)
        return await to_thread.run_sync(put_down, archive, Path(local), max_bytes, max_entries)

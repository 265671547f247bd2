"""Looks at a whole archive before anything of it is written."""

from __future__ import annotations

from typing import Any, BinaryIO, NamedTuple, Union

from hermes_sandboxd._protocol import Refusal
from hermes_sandboxd._tar_reader import FILE, FOLDER, HARD_LINK, LINK, Parts, TarReader, bad, shown, split, stream_bytes

Tree = dict[bytes, Union[str, "dict[bytes, Any]"]]
"""What a folder will hold: name to a kind, or to another folder's tree."""


class Contents(NamedTuple):
    """What an archive unpacks to."""

    entries: int
    """Files, folders and links, also folders that are only mentioned in the paths of others."""
    size: int
    """Bytes of all files together."""
    tree: Tree


def check_archive(file: BinaryIO, max_bytes: int, max_entries: int) -> Contents:
    """Read an archive to its end and return what is in it.

    Args:
        file: The archive: tar, or tar in gzip.
        max_bytes: Most bytes of all files together.
        max_entries: Most files, folders and links.

    Raises:
        Refusal: `bad_archive` for anything that an honest archive of files, folders and links below one folder does
            not contain; `too_large` for more than is allowed.
    """
    growth = _Growth(max_entries)
    members = size = 0
    for member in TarReader(file, stream_bytes(max_bytes, max_entries)):
        members += 1
        size += member.size
        if members > max_entries + 1:
            # One more: the folder itself may be a member.
            raise growth.too_many()
        if size > max_bytes:
            raise Refusal("too_large", f"the archive would unpack to more than {max_bytes} bytes")
        if member.kind == LINK:
            check_target(member.parts, member.target)
        if member.kind == HARD_LINK:
            growth.check_file(member.parts, member.target)
        growth.add(member.parts, FILE if member.kind == HARD_LINK else member.kind)
    return Contents(growth.entries, size, growth.root)


def check_target(parts: Parts, target: bytes) -> None:
    """Refuse a symbolic link that leads, or may lead, outside.

    A target may go up only at its beginning: there, the folders that it passes are real ones. Behind another link
    `..` means something else than it seems to.

    Args:
        parts: Where the link is.
        target: Where it leads.
    """
    steps = [step for step in target.split(b"/") if step not in (b"", b".")]
    ups = 0
    while ups < len(steps) and steps[ups] == b"..":
        ups += 1
    if target.startswith(b"/") or ups >= len(parts) or b".." in steps[ups:]:
        raise bad(f"the link {shown(b'/'.join(parts))} leads to {shown(target)}, which may be outside")


class _Growth:
    """The tree of an archive, as far as it has been read."""

    def __init__(self, max_entries: int) -> None:
        self.root: Tree = {}
        self.entries = 0
        self._max_entries = max_entries

    def too_many(self) -> Refusal:
        return Refusal("too_large", f"the archive would unpack to more than {self._max_entries} entries")

    def add(self, parts: Parts, kind: str) -> None:
        folder = self.root
        for part in parts[:-1] if kind != FOLDER else parts:
            below = folder.get(part)
            if below is None:
                below = {}
                self._put(folder, part, below)
            if isinstance(below, str):
                raise bad(f"{shown(b'/'.join(parts))} is below, or the same as, a member that is a {below}")
            folder = below
        if kind != FOLDER:
            if parts[-1] in folder:
                raise bad(f"{shown(b'/'.join(parts))} is in it twice")
            self._put(folder, parts[-1], kind)

    def _put(self, folder: Tree, name: bytes, what: str | Tree) -> None:
        self.entries += 1
        if self.entries > self._max_entries:
            raise self.too_many()
        folder[name] = what

    def check_file(self, parts: Parts, target: bytes) -> None:
        """Refuse a hard link to anything but a file that came before it."""
        found: str | Tree | None = self.root
        for part in split(target):
            found = found.get(part) if isinstance(found, dict) else None
        if found != FILE:
            raise bad(f"{shown(b'/'.join(parts))} is a hard link to {shown(target)}, which is no file before it")

"""Unpacks an archive that was checked."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, BinaryIO, Callable

from hermes_sandboxd._files import refusing
from hermes_sandboxd._folders import Descent
from hermes_sandboxd._protocol import Refusal
from hermes_sandboxd._tar_reader import FILE, FOLDER, LINK, TarReader, shown, split, stream_bytes

if TYPE_CHECKING:
    from hermes_sandboxd._tar_check import Contents, Tree
    from hermes_sandboxd._tar_reader import Member, Parts

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 16


def check_way(folder: int, contents: Contents) -> None:
    """Refuse to unpack where a folder is in the way of a file or link: everything else there can be replaced.

    Raises:
        Refusal: `is_directory`.
    """
    descent = Descent(folder)
    waiting: list[tuple[Parts, Tree]] = [((), contents.tree)]
    try:
        while waiting:
            parts, tree = waiting.pop()
            for name, below in tree.items():
                path = (*parts, name)
                try:
                    descent.open(path)
                except OSError:
                    # Nothing is there, or no folder; what else is wrong will be said when it is unpacked.
                    continue
                if isinstance(below, str):
                    raise Refusal("is_directory", f"the folder {shown(b'/'.join(path))} is in the way of a {below}")
                waiting.append((path, below))
    finally:
        descent.close()


def unpack(file: BinaryIO, folder: int, *, max_bytes: int, max_entries: int, keep: int = 0, give: int = 0o777) -> None:
    """Unpack an archive that `check_archive` accepts with the same limits.

    Nothing is written through a link, whoever put it there and when: what is in the way is replaced.

    Args:
        file: The archive.
        folder: Descriptor of the folder to unpack to.
        max_bytes: Most bytes of all files together.
        max_entries: Most files, folders and links.
        keep: Permission bits that the owner always gets.
        give: Permission bits that an archive may give; those to set the user or group are never among them.

    Raises:
        Refusal: Something could not be written.
    """
    unpacker = _Unpacker(folder, keep, give)
    try:
        reader = TarReader(file, stream_bytes(max_bytes, max_entries))
        for member in reader:
            with refusing(os.fsdecode(b"/".join(member.parts)) or "."):
                unpacker.add(member, reader)
        unpacker.finish()
    finally:
        unpacker.close()


class _Unpacker:
    def __init__(self, folder: int, keep: int, give: int) -> None:
        self._descent = Descent(folder, make=True)
        self._keep = keep
        self._give = give
        self._folders: dict[Parts, tuple[int, int]] = {}

    def close(self) -> None:
        self._descent.close()

    def add(self, member: Member, reader: TarReader) -> None:
        if member.kind == FOLDER:
            if member.parts:
                self._descent.open(member.parts)
                self._folders[member.parts] = (self._mode(member.mode, 0o700), member.mtime)
            return
        folder = self._descent.open(member.parts[:-1])
        name = member.parts[-1]
        if member.kind == FILE:
            file = _replacing(folder, name, lambda: os.open(name, _CREATE, 0o600, dir_fd=folder))
            try:
                self._fill(file, member, reader)
            finally:
                os.close(file)
        elif member.kind == LINK:
            _replacing(folder, name, lambda: os.symlink(member.target, name, dir_fd=folder))
            os.utime(name, (member.mtime, member.mtime), dir_fd=folder, follow_symlinks=False)
        else:
            self._link(folder, name, split(member.target))

    def _mode(self, mode: int, owner: int) -> int:
        return mode & self._give & 0o777 | self._keep & owner

    def _fill(self, file: int, member: Member, reader: TarReader) -> None:
        for data in reader.content():
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
        os.fchmod(file, self._mode(member.mode, 0o600))
        os.utime(file, (member.mtime, member.mtime))

    def _link(self, folder: int, name: bytes, target: Parts) -> None:
        # The descent has one current folder: this one is held on to while the other is looked for.
        held = os.dup(folder)
        try:
            there = self._descent.open(target[:-1])
            _replacing(
                held,
                name,
                lambda: os.link(target[-1], name, src_dir_fd=there, dst_dir_fd=held, follow_symlinks=False),
            )
        finally:
            os.close(held)

    def finish(self) -> None:
        """Give the folders their modes, the deepest first: some may not be entered any more afterwards."""
        for parts, (mode, mtime) in sorted(self._folders.items(), key=lambda item: -len(item[0])):
            with refusing(os.fsdecode(b"/".join(parts))):
                folder = self._descent.open(parts)
                os.utime(folder, (mtime, mtime))
                os.fchmod(folder, mode)


def _replacing(folder: int, name: bytes, make: Callable[[], int | None]) -> int:
    """Make something, in the place of what may be there; return what `make` does."""
    for _ in range(_ATTEMPTS):
        try:
            return make() or 0
        except FileExistsError:  # noqa: PERF203 - once more only if something is in the way
            try:
                os.unlink(name, dir_fd=folder)
            except FileNotFoundError:
                pass
            except PermissionError as error:
                # That a folder cannot be unlinked is reported in two ways.
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from error
    raise FileExistsError(errno.EEXIST, "something is put in the way again and again")

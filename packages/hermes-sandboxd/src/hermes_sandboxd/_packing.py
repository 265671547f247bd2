"""Packs a folder, or one file, into a tar.gz that is the same for the same content."""

from __future__ import annotations

import os
import stat
import zlib
from typing import Callable, NamedTuple, NoReturn

from hermes_sandboxd._files import refusing
from hermes_sandboxd._folders import Found, Walk
from hermes_sandboxd._protocol import CHUNK_BYTES, Refusal
from hermes_sandboxd._tar_check import check_target
from hermes_sandboxd._tar_reader import BLOCK, Parts

_LEVEL = 1
_RECORD = 20 * BLOCK
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LARGEST_IN_OCTAL = 8**11 - 1


class Packed(NamedTuple):
    """What went into an archive."""

    kind: str
    """`file` or `folder`."""
    entries: int
    size: int
    """Bytes of all files together."""
    skipped: int
    """What an archive cannot hold and was left out: FIFOs, sockets, devices."""
    shortened: int
    """Files that became shorter while they were read: the rest of their place holds zeros."""


def pack(
    path: str, write: Callable[[bytes], object], *, max_bytes: int, max_entries: int, links_inside: bool = False
) -> Packed:
    """Pack a file, or what is in a folder.

    Args:
        path: What to pack; a link is not followed, here or below.
        write: Takes the archive, in pieces.
        max_bytes: Most bytes of all files together.
        max_entries: Most files, folders and links.
        links_inside: Refuse links that lead outside the folder, which nobody would unpack.

    Raises:
        Refusal: It cannot be read, or is too large.
    """
    packer = _Packer(path, write, max_bytes, max_entries, links_inside)
    with refusing(path):
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode):
            folder, name = os.path.split(path)
            return packer.pack_file(folder or ".", os.fsencode(name), status)
        if not stat.S_ISDIR(status.st_mode):
            raise Refusal("not_a_file", f"{path}: is neither a regular file nor a folder")
        return packer.pack_folder()


class _Packer:
    def __init__(
        self, path: str, write: Callable[[bytes], object], max_bytes: int, max_entries: int, links_inside: bool
    ) -> None:
        self._path = path
        self._write = write
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._links_inside = links_inside
        # Its header has no time and no name in it.
        self._encoder = zlib.compressobj(_LEVEL, zlib.DEFLATED, 31)
        self._written = 0
        self._entries = self._size = self._skipped = self._shortened = 0

    def pack_file(self, folder: str, name: bytes, status: os.stat_result) -> Packed:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._add(Found((name,), opened, status))
        finally:
            os.close(opened)
        return self._end("file")

    def pack_folder(self) -> Packed:
        root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            walk = Walk(root, self._max_entries + 1, self._cannot_read)
            for found in walk:
                self._add(found)
        finally:
            os.close(root)
        if not walk.complete:
            raise Refusal("too_large", f"{self._path}: deeper than any path can be long")
        return self._end("folder")

    def _end(self, kind: str) -> Packed:
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self._written % _RECORD))
        self._write(self._encoder.flush())
        return Packed(kind, self._entries, self._size, self._skipped, self._shortened)

    def _cannot_read(self, parts: Parts, error: OSError) -> NoReturn:
        with refusing(self._shown(parts)):
            raise error

    def _shown(self, parts: Parts) -> str:
        return os.path.join(self._path, os.fsdecode(b"/".join(parts)))

    def _put(self, data: bytes) -> None:
        self._written += len(data)
        compressed = self._encoder.compress(data)
        if compressed:
            self._write(compressed)

    def _add(self, found: Found) -> None:
        mode = found.status.st_mode
        if stat.S_ISDIR(mode):
            self._count()
            self._put(_headers(found, b"5", 0, b""))
        elif stat.S_ISLNK(mode):
            self._add_link(found)
        elif stat.S_ISREG(mode):
            self._add_file(found)
        else:
            self._skipped += 1

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._max_entries:
            raise Refusal("too_large", f"{self._path}: more than {self._max_entries} entries")

    def _add_link(self, found: Found) -> None:
        try:
            target = os.readlink(found.parts[-1], dir_fd=found.folder)
        except OSError:
            # It has become something else since it was found.
            self._skipped += 1
            return
        if self._links_inside:
            check_target(found.parts, target)
        self._count()
        self._put(_headers(found, b"2", 0, target))

    def _add_file(self, found: Found) -> None:
        try:
            file = os.open(found.parts[-1], _OPEN, dir_fd=found.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            self._cannot_read(found.parts, error)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                self._skipped += 1
                return
            self._count()
            with refusing(self._shown(found.parts)):
                self._copy(file, found._replace(status=status))
        finally:
            os.close(file)

    def _copy(self, file: int, found: Found) -> None:
        # What is small is read before it is announced, so that its size is right whatever happens to the file.
        data = os.read(file, min(found.status.st_size, CHUNK_BYTES))
        size = len(data) if found.status.st_size <= CHUNK_BYTES else found.status.st_size
        self._size += size
        if self._size > self._max_bytes:
            raise Refusal("too_large", f"{self._path}: more than {self._max_bytes} bytes")
        self._put(_headers(found, b"0", size, b""))
        left = size
        while data:
            self._put(data)
            left -= len(data)
            data = os.read(file, min(left, CHUNK_BYTES))
        if left:
            self._shortened += 1
        while left:
            data = bytes(min(left, CHUNK_BYTES))
            self._put(data)
            left -= len(data)
        self._put(bytes(-size % BLOCK))


def _headers(found: Found, flag: bytes, size: int, target: bytes) -> bytes:
    """Return the header of a member, after those for what does not fit into it.

    GNU tar's way of long names, which unlike that of POSIX takes names of any bytes.
    """
    name = b"/".join(found.parts) + (b"/" if flag == b"5" else b"")
    headers = b""
    if len(target) > 100:
        headers += _long(b"K", target)
    if len(name) > 100:
        headers += _long(b"L", name)
    mtime = min(max(0, int(found.status.st_mtime)), _LARGEST_IN_OCTAL)
    return headers + _header(name[:100], flag, found.status.st_mode & 0o777, size, mtime, target[:100])


def _long(flag: bytes, name: bytes) -> bytes:
    data = name + b"\0"
    return _header(b"././@LongLink", flag, 0, len(data), 0, b"") + data + bytes(-len(data) % BLOCK)


def _header(name: bytes, flag: bytes, mode: int, size: int, mtime: int, target: bytes) -> bytes:
    sized = b"%011o\0" % size if size <= _LARGEST_IN_OCTAL else b"\x80" + size.to_bytes(11, "big")
    head = name.ljust(100, b"\0") + b"%07o\0%07o\0%07o\0" % (mode, 0, 0) + sized + b"%011o\0" % mtime
    tail = flag + target.ljust(100, b"\0") + b"ustar  \0"
    total = sum(head) + sum(tail) + 8 * 32
    return (head + b"%06o\0 " % total + tail).ljust(BLOCK, b"\0")

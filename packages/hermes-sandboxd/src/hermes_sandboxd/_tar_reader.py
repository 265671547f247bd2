"""Reads tar archives without trusting anything in them.

The same code reads an archive to check it and to unpack it, so that the two cannot disagree about what it says. It is
stricter than tar programs are: what they would interpret, guess or pass over is refused.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from hermes_sandboxd._protocol import CHUNK_BYTES, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
LONGEST_PATH = 4095
FILE, FOLDER, LINK, HARD_LINK = "file", "folder", "link", "hard link"

_GZIP_MAGIC = b"\x1f\x8b"
_LONGEST_NAME = 255
_DEEPEST = 256
_LARGEST_HEADER = 1 << 20
_LARGEST_IN_OCTAL = 8**11 - 1
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"5": FOLDER, b"2": LINK, b"1": HARD_LINK}
_FIELDS = {b"path": "path", b"linkpath": "target", b"size": "size"}
_LONGEST_NUMBER = 18
_REFUSED = {b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file"}

Parts = tuple[bytes, ...]
"""A path below some folder, in its components."""


class Member(NamedTuple):
    """One entry of an archive."""

    parts: Parts
    kind: str
    mode: int
    size: int
    mtime: int
    target: bytes
    """Where a link leads, as it is written in the archive."""


class _Extended(NamedTuple):
    """What the headers before a member's own say about it."""

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None


def stream_bytes(max_bytes: int, max_entries: int) -> int:
    """Return how long a tar stream may be that holds so much: headers and padding count as well."""
    return max_bytes + 2048 * max_entries + _LARGEST_HEADER


def shown(name: bytes) -> str:
    """Return a name for a message: in one line, without control characters, not endless."""
    return repr(name[:200].decode("utf-8", "replace"))


def bad(reason: str) -> Refusal:
    """Return the refusal of an archive."""
    return Refusal("bad_archive", f"the archive is refused: {reason}")


def split(name: bytes) -> Parts:
    """Return the components of a member's name.

    Raises:
        Refusal: It is absolute, leads upwards, or is longer or deeper than what can be made.
    """
    if name.startswith(b"/"):
        raise bad(f"{shown(name)} is an absolute path")
    if len(name) > LONGEST_PATH:
        raise bad(f"{shown(name)}… is longer than a path can be")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise bad(f"{shown(name)} contains '..'")
    if len(parts) > _DEEPEST:
        raise bad(f"{shown(name)}… is deeper than {_DEEPEST} folders")
    if any(len(part) > _LONGEST_NAME for part in parts):
        raise bad(f"{shown(name)}… contains a name that is too long")
    return parts


class _Stream:
    """The bytes of an archive, decompressed if it is a gzip file; refused when there are too many."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._left = most
        self._input = file.read(CHUNK_BYTES)
        gzip = self._input.startswith(_GZIP_MAGIC)
        self._decoder = zlib.decompressobj(31) if gzip else None
        self._buffer = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes; fewer only at the end."""
        pieces = []
        while size:
            if self._at == len(self._buffer):
                self._refill()
                if not self._buffer:
                    break
            piece = self._buffer[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _refill(self) -> None:
        self._at = 0
        self._buffer = self._input if self._decoder is None else self._decompress(self._decoder)
        if self._decoder is None:
            self._input = self._file.read(CHUNK_BYTES)
        self._left -= len(self._buffer)
        if self._left < 0:
            raise Refusal("too_large", "the archive would unpack to more than is allowed")

    def _decompress(self, decoder: zlib._Decompress) -> bytes:
        data = b""
        while not data and not decoder.eof:
            given = decoder.unconsumed_tail or self._input or self._file.read(CHUNK_BYTES)
            self._input = b""
            if not given:
                raise bad("it is truncated")
            try:
                data = decoder.decompress(given, CHUNK_BYTES)
            except zlib.error as error:
                raise bad(f"it cannot be decompressed: {error}") from None
        if not data and (decoder.unused_data or self._file.read(1)):
            raise bad("something follows the compressed data")
        return data


class TarReader:
    """Reads the members of an archive, one after the other.

    Args:
        file: The archive: tar, or tar in gzip.
        most: How many bytes it may have once it is decompressed.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._stream = _Stream(file, most)
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        while True:
            member = self._next()
            if member is None:
                return
            yield member
            for _ in self.content():
                pass

    def content(self) -> Iterator[bytes]:
        """Read what is left of the current member's content."""
        while self._left:
            data = self._read(min(self._left, CHUNK_BYTES))
            self._left -= len(data)
            yield data
        self._read(self._padding)
        self._padding = 0

    def _read(self, size: int) -> bytes:
        data = self._stream.take(size)
        if len(data) < size:
            raise bad("it is truncated")
        return data

    def _next(self) -> Member | None:
        extended = _Extended()
        while True:
            header = self._stream.take(BLOCK)
            if len(header) == BLOCK and not any(header):
                if extended != _Extended():
                    raise bad("it ends after an extended header")
                self._end()
                return None
            _check_sum(header)
            flag = header[156:157]
            if flag not in b"xgLK":
                return self._member(header, flag, extended)
            size = _number(header[124:136], "size")
            if size > _LARGEST_HEADER:
                raise bad("an extended header is too large")
            data = self._read(size)
            self._read(-size % BLOCK)
            extended = _extend(extended, flag, data)

    def _end(self) -> None:
        while True:
            data = self._stream.take(CHUNK_BYTES)
            if not data:
                return
            if data.strip(b"\0"):
                raise bad("something follows its end")

    def _member(self, header: bytes, flag: bytes, extended: _Extended) -> Member:
        name = extended.path if extended.path is not None else _name(header)
        kind = _KINDS.get(flag)
        if kind is None:
            raise bad(f"{shown(name)} is {_REFUSED.get(flag, 'of a kind that is not known')}")
        if not name or b"\0" in name:
            raise bad(f"{shown(name)} is no name")
        if flag == b"\0" and name.endswith(b"/"):
            # As archives from before 1988 have it.
            kind = FOLDER
        parts = split(name)
        if kind != FOLDER and (not parts or name.endswith(b"/")):
            raise bad(f"{shown(name)} is no name of a {kind}")
        size = _number(header[124:136], "size")
        if extended.size is not None and extended.size != size:
            if extended.size <= _LARGEST_IN_OCTAL:
                raise bad(f"{shown(name)} has two sizes")
            size = extended.size
        if size and kind != FILE:
            raise bad(f"{shown(name)} is a {kind} with content")
        target = b""
        if kind in (LINK, HARD_LINK):
            target = extended.target if extended.target is not None else _text(header[157:257])
            if not target or b"\0" in target or len(target) > LONGEST_PATH:
                raise bad(f"{shown(name)} leads to no path")
        self._left, self._padding = size, -size % BLOCK
        return Member(
            parts, kind, _number(header[100:108], "mode") & 0o777, size, _number(header[136:148], "time"), target
        )


def _extend(extended: _Extended, flag: bytes, data: bytes) -> _Extended:
    if flag in b"LK":
        # GNU tar's way: the header's content is the name.
        return _extend_one(extended, "path" if flag == b"L" else "target", data.rstrip(b"\0"))
    for key, value in _records(data):
        if key.startswith(b"GNU.sparse"):
            raise bad("it contains a sparse file")
        field = _FIELDS.get(key)
        if field is not None:
            if flag == b"g":
                raise bad(f"a header for all members sets their {field}")
            extended = _extend_one(extended, field, value)
    return extended


def _extend_one(extended: _Extended, field: str, value: bytes) -> _Extended:
    if getattr(extended, field) is not None:
        raise bad(f"a member's {field} is given twice")
    if field != "size":
        return extended._replace(path=value) if field == "path" else extended._replace(target=value)
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise bad("a header is malformed: its size is no number")
    return extended._replace(size=int(value))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a pax header."""
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 8)
        length = data[position:blank] if blank > 0 else b""
        end = position + int(length) if length.isdigit() else 0
        key, equals, value = data[blank + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= blank or data[end - 1 : end] != b"\n" or not equals or not key:
            raise bad("an extended header is malformed")
        yield key, value
        position = end


def _name(header: bytes) -> bytes:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str) -> int:
    if field[0] == 0x80:
        number = int.from_bytes(field[1:], "big")
        if number < 2**62:
            return number
    else:
        digits = field.strip(b" \0")
        if not digits.strip(b"01234567"):
            return int(digits or b"0", 8)
    if what == "time":
        # Before 1970, or long after the sun's end: of no importance.
        return 0
    raise bad(f"a header is malformed: its {what} is no number")


def _check_sum(header: bytes) -> None:
    if len(header) < BLOCK:
        raise bad("it is truncated" if header else "its end is missing")
    wanted = header[148:156].strip(b" \0")
    if not wanted or wanted.strip(b"01234567") or int(wanted, 8) != sum(header[:148]) + sum(header[156:]) + 256:
        raise bad("it is no tar archive, or a header is damaged")

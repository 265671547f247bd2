"""Archives for tests: honest ones, and those that nobody should unpack."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512


def member(
    name: str | bytes,
    content: bytes = b"",
    *,
    kind: bytes = b"0",
    target: str | bytes = b"",
    mode: int = 0o644,
    size: int | None = None,
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """Return one member, whose header may say anything."""
    name = name.encode() if isinstance(name, str) else name
    target = target.encode() if isinstance(target, str) else target
    size = len(content) if size is None else size
    header = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x",
            name,
            b"%07o" % mode,
            b"%07o" % 0,
            b"%07o" % 0,
            b"%011o" % size,
            b"%011o" % 1_000_000_000,
            b" " * 8,
            kind,
            target,
            magic,
            b"",
            b"",
            b"",
            b"",
            prefix,
        )
    )
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % BLOCK)


def pax(*records: tuple[str | bytes, str | bytes], kind: bytes = b"x") -> bytes:
    """Return an extended header."""
    data = b""
    for key, value in records:
        key, value = (text.encode() if isinstance(text, str) else text for text in (key, value))
        size = len(key) + len(value) + 3
        while len(str(size)) + len(key) + len(value) + 3 != size:
            size = len(str(size)) + len(key) + len(value) + 3
        data += b"%d %s=%s\n" % (size, key, value)
    return member("pax", data, kind=kind)


def tar(*members: bytes) -> bytes:
    """Return an archive that ends as it should."""
    return b"".join(members) + bytes(2 * BLOCK)


def link(name: str, target: str) -> bytes:
    return member(name, kind=b"2", target=target)


def folder(name: str, mode: int = 0o755) -> bytes:
    return member(name, kind=b"5", mode=mode)


def zeros(size: int) -> bytes:
    """Return a tar.gz of one file of zeros, which is made without ever being in memory."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, 31)
    packed = encoder.compress(member("zeros", size=size))
    block = bytes(1 << 20)
    # The repeated part is compressed once: between two full flushes it is always the same.
    packed += encoder.flush(zlib.Z_FULL_FLUSH)
    repeated = encoder.compress(block * 64) + encoder.flush(zlib.Z_FULL_FLUSH)
    packed += repeated * (size // len(block) // 64)
    return packed


def many(count: int) -> bytes:
    """Return a tar.gz of so many empty files."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, 31)
    header = member("00000000")
    base = sum(header[:148]) + sum(header[156:]) + 8 * 32 - 8 * ord("0")
    pieces = []
    for number in range(count):
        digits = b"%08d" % number
        check = base + sum(digits)
        pieces.append(encoder.compress(digits + header[8:148] + b"%06o\0 " % check + header[156:]))
    return b"".join(pieces) + encoder.compress(bytes(1024)) + encoder.flush()


def hostile() -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of archives that must be refused whole; each begins with a harmless file."""
    fine = member("fine", b"fine")
    bad: dict[str, tuple[bytes, ...]] = {
        "absolute path": (member("/tmp/evil", b"x"),),
        "dot dot": (member("../evil", b"x"),),
        "dot dot inside": (folder("a"), member("a/../../evil", b"x")),
        "dot dot that stays inside": (folder("a"), member("a/../evil", b"x")),
        "dot dot folder": (folder("../evil"),),
        "absolute in the prefix": (member("evil", b"x", prefix=b"/tmp"),),
        "dot dot in the prefix": (member("evil", b"x", prefix=b".."),),
        "absolute in a pax path": (pax(("path", "/tmp/evil")), member("x", b"x")),
        "dot dot in a pax path": (pax(("path", "../evil")), member("x", b"x")),
        "dot dot in a GNU name": (member("././@LongLink", b"../evil\0", kind=b"L"), member("x", b"x")),
        "absolute link": (link("evil", "/etc/passwd"),),
        "link upwards": (link("evil", ".."),),
        "link to the folder beside": (folder("a"), link("a/evil", "../../b")),
        "link in a pax header": (pax(("linkpath", "../../evil")), link("evil", "fine")),
        "link in a GNU header": (member("././@LongLink", b"/evil\0", kind=b"K"), link("evil", "fine")),
        "link upwards behind a link": (folder("a"), folder("a/b"), link("a/b/up", "../.."), link("evil", "a/b/up/..")),
        "file through a link": (folder("a"), link("l", "a"), member("l/evil", b"x")),
        "file over a link": (folder("a"), link("l", "a"), member("l", b"x")),
        "folder over a link": (folder("a"), link("l", "a"), folder("l")),
        "link over a folder": (folder("a"), folder("l"), link("l", "a")),
        "file in a file": (member("fine/evil", b"x"),),
        "the same file twice": (member("fine", b"other"),),
        "the same file in other words": (member("./fine", b"other"),),
        "hard link upwards": (member("evil", kind=b"1", target="../secret"),),
        "hard link to an absolute path": (member("evil", kind=b"1", target="/etc/passwd"),),
        "hard link to what is not there": (member("evil", kind=b"1", target="nothing"),),
        "hard link to a link": (link("l", "fine"), member("evil", kind=b"1", target="l")),
        "hard link with content": (member("evil", b"x", kind=b"1", target="fine"),),
        "character device": (member("evil", kind=b"3"),),
        "block device": (member("evil", kind=b"4"),),
        "FIFO": (member("evil", kind=b"6"),),
        "GNU sparse file": (member("evil", kind=b"S"),),
        "pax sparse file": (pax(("GNU.sparse.size", "99999999999")), member("evil", b"x")),
        "unknown kind": (member("evil", kind=b"Z"),),
        "two sizes": (pax(("size", "5000")), member("evil", b"x" * 512)),
        "smaller pax size": (pax(("size", "1")), member("evil", tar(member("../evil", b"x")))),
        "negative size": (member("evil")[:124] + b"\xff" * 12 + member("evil")[136:],),
        "size that is no number": (_broken_number(),),
        "pax size that is no number": (pax(("size", "-5")), member("evil")),
        "pax record too long": (member("pax", b"99 path=x\n", kind=b"x"), member("evil")),
        "pax record too short": (member("pax", b"7 path=x\n", kind=b"x"), member("evil")),
        "pax record without length": (member("pax", b"path=x\n", kind=b"x"), member("evil")),
        "pax header of gigabytes": (member("pax", kind=b"x", size=8 << 30),),
        "a path for everyone": (pax(("path", "evil"), kind=b"g"), member("x", b"x")),
        "two names": (pax(("path", "evil")), pax(("path", "other")), member("x")),
        "pax header at the end": (pax(("path", "evil")),),
        "no name": (member("", b"x"),),
        "only slashes": (member("//", b"x"),),
        "NUL in the name": (pax(("path", "ev\0il")), member("x")),
        "name too long": (pax(("path", "x" * 256)), member("x")),
        "path too long": (pax(("path", "x/" * 2100)), member("x")),
        "too deep": (pax(("path", "x/" * 300 + "x")), member("x")),
        "file that ends in a slash": (member("evil/", b"x"),),
        "folder with content": (member("evil", b"x", kind=b"5"),),
        "link to nowhere": (link("evil", ""),),
        "wrong checksum": (b"X" + member("evil", b"x")[1:],),
    }
    for name, members in bad.items():
        yield name, gzip.compress(tar(fine, *members))
    honest = tar(fine, member("large", bytes(100_000)))
    packed = gzip.compress(honest)
    yield "nothing", b""
    yield "no archive", b"this is no archive" * 100
    yield "gzip of no archive", gzip.compress(b"this is no archive" * 100)
    yield "truncated gzip", packed[:-20]
    yield "truncated in the checksum", packed[:-1]
    yield "wrong checksum of gzip", packed[:-8] + b"\0\0\0\0" + packed[-4:]
    yield "truncated tar in gzip", gzip.compress(honest[:5000])
    yield "truncated tar", honest[:5000]
    yield "no end", honest[:-1024]
    yield "no end in gzip", gzip.compress(honest[:-1024])
    yield "something after the end", gzip.compress(honest + member("../evil", b"x"))
    yield "something after the gzip", packed + b"garbage"
    yield "a second gzip", packed + gzip.compress(tar(member("../evil", b"x")))
    yield "bzip2", _bzip2(honest)


def _broken_number() -> bytes:
    header = bytearray(member("evil"))
    header[124:136] = b"0x5        \0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _bzip2(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data)


def contents(archive: bytes | bytearray) -> dict[str, tuple[str, int, bytes]]:
    """Return what the standard library finds in an archive: kind, mode and content or target of each name."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for info in opened:
            file = opened.extractfile(info) if info.isreg() else None
            content = file.read() if file is not None else info.linkname.encode(errors="surrogateescape")
            assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
            found[info.name] = (info.type.decode(), info.mode, content)
        # Python reads no further than the end mark; the file must be whole all the same.
        gzip.decompress(archive)
    return found

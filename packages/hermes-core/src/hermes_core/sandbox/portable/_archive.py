"""The runtime folder as one file."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
from pathlib import Path
from typing import IO

__all__ = ["archive_runtime"]


def archive_runtime(folder: Path, target: Path) -> str:
    """Write a runtime folder as a tar.gz whose top level is the folder's contents. Blocks: call it in a thread.

    The same folder gives the same bytes, whenever and by whomever it is archived.

    Args:
        folder: As `build_runtime` returns it.
        target: The archive, which is replaced at once if it is there.

    Returns:
        Its SHA-256, in hexadecimal digits.

    Raises:
        OSError: It cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    unfinished = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _pack(folder, file)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        unfinished.chmod(0o644)
        unfinished.rename(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    return digest


def _pack(folder: Path, file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, str(path.relative_to(folder)), recursive=False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member

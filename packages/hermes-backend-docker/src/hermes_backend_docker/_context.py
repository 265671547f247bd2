"""What is sent to the engine to build an image from."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
import tempfile
from typing import IO, TYPE_CHECKING

from docker.utils.build import exclude_paths

from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["digest_of", "pack", "recipe_of"]

RECIPE = "Dockerfile"
IGNORED = ".dockerignore"
KEPT_MODE = 0o755


def recipe_of(path: Path) -> Path:
    """Return the folder of a Dockerfile that was named by its folder or by itself.

    Raises:
        ConfigError: There is none.
    """
    folder = path.parent if path.name == RECIPE else path
    if not (folder / RECIPE).is_file():
        raise ConfigError(f"there is no {RECIPE} in {folder}")
    return folder.absolute()


def digest_of(folder: Path, *further: str) -> str:
    """Return what tells an image from others: the names, modes and contents of all files that it is built from.

    Args:
        folder: Of the Dockerfile.
        further: What else the image depends on.
    """
    digest = hashlib.sha256("\0".join(further).encode())
    for name, path in _files(folder):
        mode = path.lstat().st_mode
        digest.update(f"\0{name}\0{_kept(mode):o}\0".encode())
        if stat.S_ISLNK(mode):
            digest.update(os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(mode):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:20]


def pack(folder: Path) -> IO[bytes]:
    """Return an archive of a Dockerfile's folder, without what `.dockerignore` names; equal folders give equal ones."""
    packed = tempfile.TemporaryFile()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in _files(folder):
            entry = archive.gettarinfo(path, name)
            entry.mtime = entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = _kept(entry.mode)
            if entry.isreg():
                with path.open("rb") as file:
                    archive.addfile(entry, file)
            else:
                archive.addfile(entry)
    packed.seek(0)
    return packed


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    patterns = (folder / IGNORED).read_text().splitlines() if (folder / IGNORED).is_file() else []
    patterns = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    for name in sorted(exclude_paths(str(folder), patterns)):
        mode = (folder / name).lstat().st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            yield name, folder / name


def _kept(mode: int) -> int:
    """The mode as it depends on nobody's umask: whether it can be executed."""
    return KEPT_MODE if mode & 0o100 else 0o644

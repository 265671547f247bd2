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

__all__ = ["RECIPE", "RECIPE_APART", "digest_of", "digest_of_file", "pack", "recipe_of"]

RECIPE = "Dockerfile"
RECIPE_APART = ".hermes.Dockerfile"
"""What a Dockerfile is called in an archive of a folder that is not its own."""
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
            digest.update(bytes.fromhex(digest_of_file(path)))
    return digest.hexdigest()[:20]


def digest_of_file(path: Path) -> str:
    """Return what tells the content of a file from others."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(folder: Path, recipe: Path | None = None) -> IO[bytes]:
    """Return an archive of a Dockerfile's folder, without what `.dockerignore` names; equal folders give equal ones.

    Args:
        folder: What is packed.
        recipe: A Dockerfile from elsewhere, which is put into the archive as `RECIPE_APART`.
    """
    packed = tempfile.TemporaryFile()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, path in _files(folder):
            _add(archive, name, path)
        if recipe is not None:
            _add(archive, RECIPE_APART, recipe.resolve())
    packed.seek(0)
    return packed


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    entry = archive.gettarinfo(path, name)
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = _kept(entry.mode)
    if entry.isreg():
        with path.open("rb") as file:
            archive.addfile(entry, file)
    else:
        archive.addfile(entry)


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

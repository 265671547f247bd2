"""Artifacts: files that a node fetches into a task's folder before it starts."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .drivers import DriverError
from .environment import fill_text

if TYPE_CHECKING:
    from pathlib import Path

    from .alloc_dir import TaskDir
    from .documents import Doc

__all__ = ["fetch"]

ARCHIVES = (".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar", ".zip")


async def fetch(artifact: Doc, folder: TaskDir, names: dict[str, str]) -> None:
    """Fetch one artifact.

    Raises:
        DriverError: It cannot be had, recoverable; or it would be written outside of the task's folder.
    """
    source = fill_text(artifact["GetterSource"], names)
    target = folder.inside(fill_text(artifact.get("RelativeDest") or "local/", names))
    if target is None:
        raise DriverError("artifact destination path escapes the alloc directory")
    try:
        await asyncio.to_thread(download, source, artifact, target, folder.root / "tmp")
    except (OSError, ValueError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise DriverError(f"failed to download artifact {source!r}: {error}", recoverable=True) from error


def download(source: str, artifact: Doc, target: Path, scratch: Path) -> None:
    """Download, check and unpack, in a thread."""
    address = urlsplit(source)
    if address.scheme not in ("http", "https"):
        raise ValueError(f"download not supported for scheme {address.scheme!r}")
    name = PurePosixPath(address.path).name
    file = scratch / f".download-{name}"
    headers = artifact.get("GetterHeaders") or {}
    with urllib.request.urlopen(urllib.request.Request(source, headers=headers)) as answer, file.open("wb") as output:
        shutil.copyfileobj(answer, output)
    options = artifact.get("GetterOptions") or {}
    try:
        if checksum := options.get("checksum"):
            kind, _, wanted = checksum.partition(":")
            if hashlib.new(kind, file.read_bytes()).hexdigest() != wanted:
                raise ValueError(f"Checksums did not match for {source}")
        mode = artifact.get("GetterMode") or "any"
        if options.get("archive") != "false" and mode != "file" and name.endswith(ARCHIVES):
            target.mkdir(parents=True, exist_ok=True)
            unpack(file, name, target)
        else:
            place = target if mode == "file" else target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    finally:
        file.unlink()


def unpack(file: Path, name: str, target: Path) -> None:
    """Unpack an archive with the modes that it records."""
    if name.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(target)
    else:
        with tarfile.open(file) as archive:
            archive.extractall(target, filter="tar")

"""Images: what a text means, and where the image is that containers are started from."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from anyio import to_thread

from hermes_backend_singularity._conversion import convert
from hermes_backend_singularity._locks import try_lock, wait_lock
from hermes_core.exceptions import ConfigError
from hermes_sandboxd import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ImageStore", "is_source"]

SOURCE = re.compile(r"[a-z][a-z0-9+.-]*://|(docker-daemon|docker-archive|oci|oci-archive):")
HINT = "give a .sif file, a folder with a root file system, or a source such as docker://debian:12"
OLD_S = 5 * 24 * 3600.0
"""After so long an unpacked image is unpacked anew, unless it is in use: what cleans temporary folders takes single
files away, ten days old on most systems."""

_logger = logging.getLogger(__name__)


def is_source(image: str) -> bool:
    """Say whether an image is something that the engine has to convert first."""
    return SOURCE.match(image) is not None


class ImageStore:
    """Has images ready: each is converted once and unpacked once, however many workers of a machine ask for it.

    A converted image is one `.sif` file in `cache`, which machines may share; an unpacked one is a folder in `scratch`.
    Both come into being beside their place, under a lock, and are then renamed. Whoever uses one holds a shared lock.

    Args:
        engine: The program that converts.
        cache: Folder for converted images.
        scratch: Folder for unpacked images and the engine's temporary files.
        unpack: Whether to unpack.
    """

    def __init__(self, engine: Path, cache: Callable[[], Path], scratch: Path, *, unpack: bool) -> None:
        self._engine = engine
        self._cache = cache
        self._scratch = scratch
        self._unpack = unpack
        self._ready: dict[str, Path] = {}
        self._busy = anyio.Lock()
        self._held: list[int] = []

    async def prepare(self, image: str) -> Path:
        """Return the file or folder that containers of an image are started from.

        Raises:
            ConfigError: There is no such image.
            BackendUnavailableError: It cannot be converted.
        """
        async with self._busy:
            if image not in self._ready:
                self._ready[image] = await self._prepare(image)
            return self._ready[image]

    def close(self) -> None:
        """Let go of the images."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
        self._ready.clear()

    async def _prepare(self, image: str) -> Path:
        if is_source(image):
            path = await self._have(self._cache() / f"{_key(image, image)}.sif", image)
        else:
            path = _existing(image)
            if path.is_dir():
                return path
        if not self._unpack:
            return path
        facts = path.stat()
        version = f"{path} {facts.st_size} {facts.st_mtime_ns}"
        return await self._have(self._scratch / _key(path.stem, version), str(path))

    async def _have(self, target: Path, source: str) -> Path:
        """Make an image if it is not there, and hold it."""
        lock = target.with_name(target.name + ".lock")
        while True:
            if _is_complete(target):
                held = await wait_lock(lock, shared=True)
                if _is_complete(target):
                    self._held.append(held)
                    return target
                os.close(held)
            making = try_lock(lock) if _is_there(target) else await wait_lock(lock)
            if making is None:  # old, and in use
                self._held.append(await wait_lock(lock, shared=True))
                return target
            try:
                if not _is_complete(target):
                    await self._make(target, source, making)
            finally:
                os.close(making)

    async def _make(self, target: Path, source: str, lock: int) -> None:
        await to_thread.run_sync(_clear, target)
        began = time.monotonic()
        _logger.info("image %s is being made from %s", target, source)
        partial = target.with_name(f"{target.name}.partial-{os.urandom(4).hex()}{target.suffix}")
        try:
            await convert(self._engine, source, partial, temporary=self._scratch, lock=lock)
            partial.rename(target)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_remove, partial)
        _logger.info("image %s was made in %.1f s", target, time.monotonic() - began)


def _key(name: str, version: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:]
    return f"{readable}-{hashlib.sha256(version.encode()).hexdigest()[:16]}"


def _existing(image: str) -> Path:
    path = Path(image).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"image {path}: no such file or folder", hint=HINT)
    if not os.access(path, os.R_OK):
        raise ConfigError(f"image {path} cannot be read by this user", hint=HINT)
    if path.suffix == ".def":
        raise ConfigError(f"image {path} is a definition, not an image", hint=f"apptainer build IMAGE.sif {path.name}")
    return path.resolve()


def _is_there(target: Path) -> bool:
    return target.exists()


def _is_complete(target: Path) -> bool:
    try:
        facts = target.stat()
    except FileNotFoundError:
        return False
    return target.suffix == ".sif" or time.time() - facts.st_ctime < OLD_S


def _clear(target: Path) -> None:
    """Remove an image that is old, and what killed processes left of it; nobody else has its lock."""
    for path in (target, *target.parent.glob(f"{target.name}.partial-*")):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_tree(os.fspath(path))
    else:
        path.unlink(missing_ok=True)

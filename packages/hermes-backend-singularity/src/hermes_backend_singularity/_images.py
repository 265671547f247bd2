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
from hermes_backend_singularity._reference import definition
from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_sandboxd import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HINT", "ImageStore", "is_source", "sweep_images"]

SOURCE = re.compile(r"[a-z][a-z0-9+.-]*://|(docker-daemon|docker-archive|oci|oci-archive):")
SUFFIX = ".sif"
PARTIAL = ".partial-"
LOCK = ".lock"
MAGIC, MAGIC_AT = b"SIF_MAGIC", 32
SQUASHFS = b"hsqs"
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

    async def reference(self, base: str) -> Path:
        """Return what containers of the reference image are started from.

        Args:
            base: The image that it is built on.

        Raises:
            ConfigError: There is no such base.
            BackendUnavailableError: It cannot be built.
        """
        base = base if is_source(base) else str(_existing(base))
        text = definition(base)
        async with self._busy:
            if text not in self._ready:
                try:
                    built = await self._have(*_written(text, self._cache()))
                    self._ready[text] = await self._unpacked(built)
                except BackendUnavailableError as error:
                    raise BackendUnavailableError(
                        f"the reference image cannot be built on {base}: {error.message}",
                        hint=error.hint or "give an image that is there: -B image=…, or -B base_image=…",
                    ) from error
            return self._ready[text]

    async def prepare(self, image: str) -> Path:
        """Return the file or folder that containers of an image are started from.

        Raises:
            ConfigError: There is no such image.
            BackendUnavailableError: It cannot be converted.
        """
        async with self._busy:
            if image not in self._ready:
                try:
                    self._ready[image] = await self._prepare(image)
                except OSError as error:
                    raise BackendUnavailableError(
                        f"image {image} cannot be made ready: {error.strerror}: {error.filename}",
                        hint="choose other folders: -B scratch_dir=FOLDER, -B cache_dir=FOLDER",
                    ) from error
            return self._ready[image]

    def close(self) -> None:
        """Let go of the images."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()
        self._ready.clear()

    async def _prepare(self, image: str) -> Path:
        if is_source(image):
            path = self._cache() / f"{_key(image, _version_of_source(image))}{SUFFIX}"
            if _is_there(path):
                _logger.info("image %s was converted before; to have it converted again, remove %s", image, path)
            await self._have(path, image)
        else:
            path = _existing(image)
            if path.is_dir():
                return path
        return await self._unpacked(path)

    async def _unpacked(self, path: Path) -> Path:
        if not self._unpack:
            return path
        return await self._have(self._scratch / _key(path.stem, _version(path)), str(path))

    async def _have(self, target: Path, source: str) -> Path:
        """Make an image if it is not there, and hold it."""
        lock = target.with_name(target.name + LOCK)
        while True:
            complete = _is_complete(target, lock)
            making = None if complete else try_lock(lock) if _is_there(target) else await wait_lock(lock)
            if making is None:  # complete; or old and in use, and then good enough
                held = await wait_lock(lock, shared=True)
                if _is_complete(target, lock) or (not complete and _is_there(target)):
                    self._held.append(held)
                    return target
                os.close(held)
                continue
            try:
                if not _is_complete(target, lock):
                    await self._make(target, source, making)
            finally:
                os.close(making)

    async def _make(self, target: Path, source: str, lock: int) -> None:
        await to_thread.run_sync(_clear, target, self._scratch)
        began = time.monotonic()
        _logger.info("image %s is being made from %s", target, source)
        # The engine has temporary files beside its target too, and leaves them there when it is killed.
        name = f"{target.name}{PARTIAL}{os.urandom(4).hex()}"
        work, temporary = target.with_name(name), self._scratch / f"{name}.tmp"
        partial = work / f"image{SUFFIX if target.suffix == SUFFIX else ''}"
        for folder in (work, temporary):
            folder.mkdir(mode=0o700)
        try:
            await convert(self._engine, source, partial, temporary=temporary, lock=lock)
            partial.rename(target)
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(time.time()).encode(), 0)
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_remove, work, temporary)
        _logger.info("image %s was made in %.1f s", target, time.monotonic() - began)


def sweep_images(scratch: Path) -> None:
    """Remove images that are old and that nobody uses, and what killed processes left of others."""
    names = {path.name.removesuffix(LOCK).partition(PARTIAL)[0] for path in scratch.iterdir()}
    # Of what is converted, the lock is elsewhere.
    for target in (scratch / name for name in names if not name.endswith(SUFFIX)):
        lock = target.with_name(target.name + LOCK)
        left = any(scratch.glob(f"{target.name}{PARTIAL}*"))
        if (left or not _is_complete(target, lock)) and (held := try_lock(lock)) is not None:
            try:
                if _is_complete(target, lock):
                    _remove(*scratch.glob(f"{target.name}{PARTIAL}*"))
                else:
                    _clear(target, scratch)
                    lock.unlink()
            finally:
                os.close(held)


def _written(text: str, cache: Path) -> tuple[Path, str]:
    """Write a definition, if it is not there, and return the image that is built of it, and it."""
    target = cache / f"{_key('reference', text)}{SUFFIX}"
    file = target.with_suffix(".def")
    if not file.exists():
        unfinished = file.with_name(f"{file.name}{PARTIAL}{os.urandom(4).hex()}")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(file)
    return target, str(file)


def _version(path: Path) -> str:
    facts = path.stat()
    return f"{path} {facts.st_size} {facts.st_mtime_ns}"


def _key(name: str, version: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:]
    return f"{readable}-{hashlib.sha256(version.encode()).hexdigest()[:16]}"


def _version_of_source(image: str) -> str:
    """Return what tells a source from others; archives are told by what they are like, all else by its name."""
    try:
        facts = Path(image.partition(":")[2].partition(":")[0]).stat()
    except OSError:
        return image
    return f"{image} {facts.st_size} {facts.st_mtime_ns}"


def _existing(image: str) -> Path:
    path = Path(image).expanduser().absolute()
    if not path.exists():
        raise ConfigError(f"image {path}: no such file or folder", hint=HINT)
    if not os.access(path, os.R_OK):
        raise ConfigError(f"image {path} cannot be read by this user", hint=HINT)
    if path.is_file() and not _is_image(path):
        # The engine would take it for a definition, and do what it says.
        raise ConfigError(
            f"{path} is no image", hint=f"{HINT}; a definition is built by: apptainer build IMAGE.sif FILE"
        )
    return path.resolve()


def _is_image(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(MAGIC_AT + len(MAGIC))
    return head[MAGIC_AT:] == MAGIC or head.startswith(SQUASHFS)


def _is_there(target: Path) -> bool:
    return target.exists()


def _is_complete(target: Path, lock: Path) -> bool:
    """Say whether an image is there; one that was unpacked is not trusted for ever."""
    return target.exists() and (target.suffix == SUFFIX or time.time() - _made_at(lock) < OLD_S)


def _made_at(lock: Path) -> float:
    """Return when an image was made, as its maker wrote it into the lock's file."""
    try:
        return float(lock.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0.0


def _clear(target: Path, scratch: Path) -> None:
    """Remove an image that is old, and what killed processes left of it; nobody else has its lock."""
    left = {path for folder in (target.parent, scratch) for path in folder.glob(f"{target.name}{PARTIAL}*")}
    _remove(target, *left)


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            remove_tree(os.fspath(path))
        else:
            path.unlink(missing_ok=True)

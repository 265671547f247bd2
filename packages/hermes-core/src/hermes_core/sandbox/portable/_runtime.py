"""Builds the runtime folder once, and tells how it is used."""

from __future__ import annotations

import compileall
import fcntl
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox._runtime import Runtime
from hermes_core.sandbox.portable._contents import BUBBLEWRAP, LIBRARIES, LOADER, PACKAGE, PYTHON, collect
from hermes_core.sandbox.portable._use import hold
from hermes_sandboxd import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_core.sandbox.portable._contents import Contents

__all__ = [
    "RUNTIME_INSIDE",
    "UNFINISHED",
    "alone",
    "build_runtime",
    "fixed_runtime",
    "portable_runtime",
    "runtime_of",
    "runtimes_folder",
]

RUNTIME_INSIDE = "/opt/hermes"
"""Where the folder is mounted inside a sandbox, unless a backend chooses otherwise."""

LOCK = ".lock"
UNFINISHED = ".unfinished-"


def portable_runtime(inside: str = RUNTIME_INSIDE) -> Runtime:
    """Return how to launch the daemon in an image that may have neither Python nor bubblewrap nor a C library.

    The folder that makes it possible, `files[0]`, is built when it is not there yet, which takes some seconds; it must
    be at `inside`, where reading it is enough. Blocks: call it in a thread.

    Args:
        inside: Absolute path of the folder inside the sandbox.

    Raises:
        BackendUnavailableError: It cannot be built here.
    """
    return runtime_of(build_runtime(), inside)


def runtime_of(folder: Path, inside: str) -> Runtime:
    """Return how to launch the daemon by a runtime folder.

    Args:
        folder: Where it is on this machine.
        inside: Where it is in the sandbox.
    """
    return replace(fixed_runtime(inside), files=(folder,))


def fixed_runtime(inside: str = RUNTIME_INSIDE) -> Runtime:
    """Return how to launch the daemon by a runtime folder that is in the sandbox already, whoever built it.

    Args:
        inside: Absolute path of the folder inside the sandbox.
    """
    # The interpreter finds its library beside itself, by the path that it is started with.
    program = (f"{inside}/{LOADER}", "--library-path", f"{inside}/{LIBRARIES}", f"{inside}/{PYTHON}")
    return Runtime(arguments=(*program, "-I", "-S", f"{inside}/{PACKAGE}"))


def runtimes_folder() -> Path:
    """`runtimes` under `$HERMES_CACHE`, `$XDG_CACHE_HOME/hermes` or `~/.cache/hermes`."""
    if own := os.environ.get("HERMES_CACHE"):
        return Path(own).expanduser() / "runtimes"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "hermes" / "runtimes"


def build_runtime(parent: Path | None = None) -> Path:
    """Return the runtime folder of this interpreter and this version of the daemon, built if it is not there yet.

    It is named for what went in, so that an update makes another one, and never changes once it has its name. It is
    kept from being pruned until this process ends.

    Args:
        parent: Where it is kept; `runtimes_folder()` if None.

    Raises:
        BackendUnavailableError: It cannot be built here.
    """
    parent = parent or runtimes_folder()
    contents = collect()
    folder = parent / contents.digest
    try:
        if hold(folder):
            return folder
        parent.mkdir(parents=True, exist_ok=True)
        with alone(parent):
            if not hold(folder):
                _build(contents, folder)
                hold(folder)
    except OSError as error:
        raise BackendUnavailableError(
            f"the runtime folder {folder} cannot be built: {error.strerror or error}",
            hint="HERMES_CACHE=FOLDER names another place",
        ) from error
    return folder


@contextmanager
def alone(parent: Path) -> Iterator[None]:
    """Be the only one who builds or removes; what somebody left who was killed is removed."""
    with (parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in parent.glob(UNFINISHED + "*"):
            shutil.rmtree(path)
        yield


def _build(contents: Contents, folder: Path) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
    try:
        for name, source in contents.files.items():
            target = unfinished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        manifest = {
            "loader": LOADER,
            "libraries": LIBRARIES,
            "python": PYTHON,
            "bubblewrap": BUBBLEWRAP,
            "bubblewrap_libraries": contents.bubblewrap_libraries,
        }
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        _compile(unfinished)
        _open_to_all(unfinished)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _compile(folder: Path) -> None:
    # The times of files do not survive every way into a sandbox, and nobody changes these.
    compileall.compile_dir(
        folder, stripdir=str(folder), quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


def _open_to_all(folder: Path) -> None:
    """Let everybody read everything, and run what is a program, whatever the umask is."""
    programs = {folder / PYTHON, folder / BUBBLEWRAP, folder / LOADER}
    for parent, _, names in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in names:
            path = Path(parent, name)
            path.chmod(0o755 if path in programs else 0o644)

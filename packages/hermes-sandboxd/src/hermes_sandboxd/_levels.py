"""Which isolation level the slots of a daemon get, and which limits hold for them, by what."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Callable, NamedTuple

from hermes_sandboxd._cgroups import ControlGroups
from hermes_sandboxd._limits import counts_processes
from hermes_sandboxd._seccomp import seccomp_obstacle

if TYPE_CHECKING:
    from hermes_sandboxd._check import NamespaceReport

_CAP_SETGID, _CAP_SETUID = 6, 7


class Isolation(NamedTuple):
    """What was chosen."""

    level: str
    """`namespaces`, `user` or `none`."""
    obstacle: str | None
    """Why no slot can be opened here, in one line with a hint; or None."""
    seccomp_obstacle: str | None
    """Why commands are not bound to the filter of system calls, or None if they are."""


def choose_isolation(wanted: str, capacity: int, check: Callable[[], NamespaceReport]) -> Isolation:
    """Return the level for slots here.

    Args:
        wanted: A level by name, or `auto` for the best that works. Nothing is ever weaker than what was named, and
            `auto` never puts several slots into one sandbox without isolation.
        capacity: How many slots there are.
        check: Finds out whether namespaces work.
    """
    level, obstacle = _choose(wanted, capacity, check)
    return Isolation(level, obstacle, seccomp_obstacle())


def _choose(wanted: str, capacity: int, check: Callable[[], NamespaceReport]) -> tuple[str, str | None]:
    if wanted == "none":
        return "none", None
    users = user_obstacle()
    if wanted == "user":
        return "user", None if users is None else f"isolation level user cannot be had: {users}"
    report = check()
    if report.available or wanted == "namespaces":
        return "namespaces", report.obstacle
    if users is None:
        return "user", None
    if capacity == 1:
        return "none", None
    return "namespaces", (
        f"{report.obstacle}; users of their own cannot be had either: {users}; "
        "several slots without isolation only by name: isolation none"
    )


def user_obstacle() -> str | None:
    """Return why slots cannot have users of their own here, or None."""
    if os.geteuid() != 0:
        return "the daemon is not root"
    with open("/proc/self/status", encoding="ascii") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    if not all(effective >> capability & 1 for capability in (_CAP_SETGID, _CAP_SETUID)):
        return "the daemon may not become another user (CAP_SETUID, CAP_SETGID)"
    return None


def enforced(isolation: Isolation, groups: ControlGroups | None) -> dict[str, str]:
    """Return what is enforced for the slots of a daemon, and by what."""
    group = None if groups is None else f"control group v{groups.version}"
    own_files = isolation.level == "namespaces"
    not_enforced = f"not enforced at level {isolation.level} here"
    own_user = isolation.level != "none" and os.geteuid() == 0
    processes = ["RLIMIT_NPROC"] if counts_processes(isolation.level, own_user=own_user) else []
    return {
        "wall_time": "supervisor, then daemon",
        "cpu": "RLIMIT_CPU, per process",
        "memory_bytes": group or "watchdog, and RLIMIT_DATA per process",
        "processes": ", ".join([*([group] if group else []), *processes]) or not_enforced,
        "open_files": f"RLIMIT_NOFILE{_most_open_files()}",
        "file_bytes": "RLIMIT_FSIZE",
        "workspace_bytes": "watchdog, or the size of a tmpfs" if own_files else "watchdog",
        "tmp_bytes": "size of a tmpfs" if own_files else not_enforced,
        "home_bytes": "size of a tmpfs" if own_files else not_enforced,
        "output": "supervisor",
        "system_calls": isolation.seccomp_obstacle or "seccomp filter",
    }


def _most_open_files() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return "" if hard == resource.RLIM_INFINITY else f", at most {hard}"


def describe_limits(isolation: Isolation) -> dict[str, str]:
    """Return what a daemon that is started here by this user would enforce, and by what."""
    try:
        return enforced(isolation, ControlGroups("doctor" + os.urandom(3).hex()))
    except OSError:
        return enforced(isolation, None)

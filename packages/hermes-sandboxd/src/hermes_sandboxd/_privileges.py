"""What a daemon that is started as root does with its privileges before it does anything else."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from hermes_sandboxd import _linux

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTAINER = (
    "the container needs CAP_SYS_ADMIN: cap_add sys_admin, with it in the operator's allow_caps, "
    "and security_opt seccomp=unconfined, apparmor=unconfined"
)


class PrivilegeError(Exception):
    """The daemon cannot become what it should be; the message says why and what to do."""


def settle(
    fresh_proc: bool, drop_to: str | None, folders: Iterable[str], hidden: Iterable[str], guarded: Iterable[str]
) -> None:
    """Close what is hidden or guarded, mount a fresh /proc, and become an ordinary user, as far as each is asked for.

    Args:
        fresh_proc: Leave the container's /proc, parts of which are masked, for one that slots can have theirs beside.
        drop_to: `UID[:GID]` to be from now on, without any capability or a way to gain one.
        folders: What that user needs for files of its own: made here, since it may not be able to.
        hidden: Folders that nobody but the owner, who is whoever started this process, may look into from now on.
        guarded: Folders that nobody but the owner may change from now on.

    Raises:
        PrivilegeError: It cannot be done.
    """
    _close(hidden, 0o077, "hidden")
    _close(guarded, 0o022, "guarded")
    if fresh_proc:
        try:
            _linux.mount_own_proc()
        except OSError as error:
            raise PrivilegeError(f"a fresh /proc cannot be mounted: {error.strerror}; {_CONTAINER}") from None
    if drop_to is not None:
        user, group = _identity(drop_to)
        try:
            for folder in dict.fromkeys(folders):
                _hand_over(folder, user, group)
            _become(user, group)
        except OSError as error:
            raise PrivilegeError(f"the daemon cannot become user {user}: {error}; start it as root") from None


def _close(folders: Iterable[str], taken: int, becoming: str) -> None:
    for folder in filter(os.path.isdir, folders):
        try:
            os.chmod(folder, stat.S_IMODE(os.stat(folder).st_mode) & ~taken)
        except OSError as error:  # noqa: PERF203 - beside a system call it costs nothing
            reason = f"{folder} cannot be {becoming}: {error.strerror}; start the daemon as its owner"
            raise PrivilegeError(reason) from None


def _identity(text: str) -> tuple[int, int]:
    user, _, group = text.partition(":")
    try:
        found = int(user), int(group or user)
    except ValueError:
        found = 0, 0
    if min(found) < 1:
        raise PrivilegeError(f"--drop-to {text}: not UID[:GID] of an ordinary user")
    return found


def _hand_over(folder: str, user: int, group: int) -> None:
    mask = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        os.mkdir(folder, 0o711)
    except FileExistsError:
        # Not chowned: it may be anybody's, and /run as well.
        if os.stat(folder).st_uid != user:
            raise PrivilegeError(
                f"{folder}: belongs to somebody else than user {user}; choose a folder that is not there yet, "
                "such as /run/hermes/NAME"
            ) from None
    else:
        os.chown(folder, user, group)
    finally:
        os.umask(mask)


def _become(user: int, group: int) -> None:
    _linux.drop_bounding_set()
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    _linux.clear_capabilities()
    _linux.set_no_new_privileges()
    # The change of user closed /proc/self to it, where the daemon has its own score for the case of no memory.
    _linux.set_dumpable()

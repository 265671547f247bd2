"""Folders that others than this user must get into."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["closed_to", "make_open"]


def make_open(folder: Path) -> None:
    """Make a folder and those above it, open to everybody whatever the umask is; what is there stays as it is."""
    for one in (*reversed(folder.parents), folder):
        if not one.is_dir():
            with suppress(FileExistsError):
                one.mkdir()
                one.chmod(0o755)


def closed_to(user: str | None, folder: Path) -> Path | None:
    """Return the first folder on the way to a folder, itself included, that a user cannot pass; None if there is none.

    Args:
        user: A user of this machine; None for somebody who has no part in anything.
        folder: Where to.

    Raises:
        KeyError: There is no such user.
    """
    account = None if user is None else pwd.getpwnam(user)
    if account is not None and account.pw_uid == 0:
        return None
    groups = [] if account is None else os.getgrouplist(account.pw_name, account.pw_gid)
    real = folder.resolve()
    for one in (*reversed(real.parents), real):
        facts = one.stat()
        owned = account is not None and facts.st_uid == account.pw_uid
        shift = 6 if owned else 3 if facts.st_gid in groups else 0
        if not facts.st_mode >> shift & 0o1:
            return one
    return None

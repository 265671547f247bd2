"""Users for slots when the daemon is root: one each, claimed against every other daemon of this machine."""

from __future__ import annotations

import fcntl
import os
import pwd
from typing import NamedTuple

CLAIMS = "/run/hermes-sandboxd"
"""Folder of the claims. Daemons that share a kernel must share it, in containers too: a user is the same user there."""

_FOLDERS = (CLAIMS, "/dev/shm/hermes-sandboxd")


class Claim(NamedTuple):
    """The exclusive right to run processes as `uid`, for as long as anybody holds `descriptor`."""

    uid: int
    descriptor: int


class Users:
    """Hands out the users of a range."""

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._last = last
        self._next = first
        self._folder: str | None = None

    @classmethod
    def parse(cls, text: str) -> Users:
        """Return the users of a range such as `60000:65000`.

        Raises:
            ValueError: `text` is not a range of ordinary user ids.
        """
        first, _, last = text.partition(":")
        if not 1000 <= int(first) <= int(last) < 2**31:
            raise ValueError(f"{text}: not a range of user ids")
        return cls(int(first), int(last))

    def claim(self) -> Claim | None:
        """Return a claim that nobody else has, or None if the whole range is taken."""
        folder = self._claims()
        for _ in range(self._last - self._first + 1):
            uid = self._next
            self._next = self._first if uid == self._last else uid + 1
            if not _is_somebody(uid):
                descriptor = os.open(os.path.join(folder, str(uid)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    continue
                return Claim(uid, descriptor)
        return None

    def _claims(self) -> str:
        if self._folder is None:
            self._folder = _make_claims()
        return self._folder


def _make_claims() -> str:
    failure: OSError | None = None
    for folder in _FOLDERS:
        try:
            os.makedirs(folder, mode=0o711, exist_ok=True)
            if os.lstat(folder).st_uid == os.geteuid():
                return folder
        except OSError as error:  # noqa: PERF203 - beside a system call it costs nothing
            failure = error
    raise failure or PermissionError(f"{_FOLDERS[0]} belongs to somebody else")


def _is_somebody(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True

"""Goes through folders by their descriptors, never through a link, however deep they are."""

from __future__ import annotations

import errno
import heapq
import os
import stat
from typing import TYPE_CHECKING, Callable, NamedTuple

from hermes_sandboxd._tar_reader import LONGEST_PATH, Parts

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT_OPEN = 64
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Descent:
    """Opens folders below one folder, a component at a time.

    The folders on the way to the last one stay open, so that its neighbours are near; the deepest ones do not, since
    a process has few descriptors.

    Args:
        root: Descriptor of the folder, which stays the caller's.
        make: Make folders that are missing, in the place of whatever else has their name.
    """

    def __init__(self, root: int, *, make: bool = False) -> None:
        self._root = root
        self._make = make
        self._at: Parts = ()
        self._open: list[int] = []
        self._last = -1

    def close(self) -> None:
        """Close what is open."""
        self._leave(0)

    def open(self, parts: Parts) -> int:
        """Return the descriptor of a folder, which is good until the next call."""
        if parts == self._at:
            return self._current
        shared = 0
        for ours, wanted in zip(self._at, parts):
            if ours != wanted:
                break
            shared += 1
        self._leave(shared)
        for part in parts[len(self._at) :]:
            below = self._enter(self._current, part)
            if len(self._open) < _KEPT_OPEN:
                self._open.append(below)
            else:
                self._drop_last()
                self._last = below
            self._at = (*self._at, part)
        return self._current

    @property
    def _current(self) -> int:
        if self._last >= 0:
            return self._last
        return self._open[-1] if self._open else self._root

    def _drop_last(self) -> None:
        if self._last >= 0:
            os.close(self._last)
            self._last = -1

    def _leave(self, depth: int) -> None:
        """Go up until no more than `depth` folders are entered, and then to the deepest one that is open."""
        if len(self._at) <= depth:
            return
        self._drop_last()
        while len(self._open) > depth:
            os.close(self._open.pop())
        self._at = self._at[: len(self._open)]

    def _enter(self, folder: int, name: bytes) -> int:
        try:
            return os.open(name, _OPEN, dir_fd=folder)
        except OSError as error:
            if not self._make or error.errno not in _GONE:
                raise
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        os.mkdir(name, 0o755, dir_fd=folder)
        return os.open(name, _OPEN, dir_fd=folder)


class Found(NamedTuple):
    """Something in a folder."""

    parts: Parts
    folder: int
    """Descriptor of the folder that it is in, good until the next one is found."""
    status: os.stat_result


class Walk:
    """Finds everything below a folder: each folder before what is in it, names in the order of their bytes.

    Args:
        root: Descriptor of the folder, which stays the caller's.
        most: How many names of one folder are of interest: the others, the last ones, are left out.
        failed: Called with a folder and the error because of which it could not be read.
        recursive: Whether to look into the folders that are found.
    """

    def __init__(self, root: int, most: int, failed: Callable[[Parts, OSError], None], recursive: bool = True) -> None:
        self._root = root
        self._most = most
        self._failed = failed
        self._recursive = recursive
        self.complete = True
        """Whether nothing was left out."""

    def __iter__(self) -> Iterator[Found]:
        descent = Descent(self._root)
        try:
            yield from self._find(descent)
        finally:
            descent.close()

    def _find(self, descent: Descent) -> Iterator[Found]:
        here: list[tuple[Parts, Iterator[bytes]]] = [((), self._names(descent, ()))]
        while here:
            parts, names = here[-1]
            name = next(names, None)
            if name is None:
                here.pop()
                continue
            found = (*parts, name)
            try:
                folder = descent.open(parts)
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                self._missed(found, error)
                continue
            yield Found(found, folder, status)
            if stat.S_ISDIR(status.st_mode) and self._recursive:
                if len(b"/".join(found)) + 2 > LONGEST_PATH:
                    # What is in there has no path that anyone could use.
                    self.complete = False
                else:
                    here.append((found, self._names(descent, found)))

    def _names(self, descent: Descent, parts: Parts) -> Iterator[bytes]:
        try:
            with os.scandir(descent.open(parts)) as entries:
                names = (os.fsencode(entry.name) for entry in entries)
                first = heapq.nsmallest(self._most + 1, names)
        except OSError as error:
            self._missed(parts, error)
            return iter(())
        if len(first) > self._most:
            self.complete = False
        return iter(first[: self._most])

    def _missed(self, parts: Parts, error: OSError) -> None:
        # What has gone away since its name was read is not there.
        if error.errno not in _GONE:
            self._failed(parts, error)

"""The folder that holds everything a daemon puts on disk, and that is gone when the daemon is."""

from __future__ import annotations

import fcntl
import os
import sys

from hermes_sandboxd._etc import bound_folders, prepare_etc
from hermes_sandboxd._first_process import write_first_process
from hermes_sandboxd._programs import is_reachable, place_bubblewrap
from hermes_sandboxd._removal import remove_tree

_LOCK = ".hermes-sandboxd"


class StateError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class StateFolder:
    """A locked folder: the lock tells daemons that live from folders that were left behind.

    Args:
        path: Where it is.
        in_image: Whether the daemon is in a container whose image is there for the slots.
    """

    def __init__(self, path: str, *, in_image: bool = False) -> None:
        self.path = os.path.abspath(path)
        self.etc = os.path.join(self.path, "etc")
        self._places = os.path.join(self.path, "work")
        self._inits = os.path.join(self.path, "init")
        self._programs = os.path.join(self.path, "program")
        self._in_image = in_image
        self.bound: list[str] = []
        self.lock = -1

    def create(self) -> None:
        """Make the folder and lock it; a folder left behind by a daemon that was killed is removed first.

        Raises:
            StateError: It is another daemon's, or somebody else's, or out of the slots' reach.
        """
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            os.mkdir(self.path)
        except FileExistsError:
            self._take_over()
        if os.geteuid() == 0 and not is_reachable(self.path):
            os.rmdir(self.path)
            raise StateError(
                f"{self.path}: slots run as users of their own, who cannot pass the folders above it; "
                "choose a state folder such as /run/hermes/NAME"
            )
        # Others may pass, which the users of the slots must, but not look around.
        os.chmod(self.path, 0o711)
        self.lock = _lock(self.path)
        for folder in (self._places, self._inits):
            os.mkdir(folder)
            os.chmod(folder, 0o711)
        self.bound = bound_folders()
        prepare_etc(self.etc, whole=self._in_image)

    def _take_over(self) -> None:
        if os.listdir(self.path):
            if not remove_abandoned(self.path):
                raise StateError(f"{self.path}: in use by another daemon, or not a state folder of hermes-sandboxd")
            os.mkdir(self.path)

    def remove_abandoned_siblings(self) -> None:
        """Remove the folders beside this one that killed daemons of this user left behind."""
        parent = os.path.dirname(self.path)
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            if path != self.path:
                try:
                    remove_abandoned(path)
                except OSError as error:
                    sys.stderr.write(f"hermes-sandboxd: {path}: left behind, cannot be removed: {error}\n")

    def bubblewrap(self, path: str) -> str:
        """Return where every slot's user can run the bubblewrap of `path`."""
        return place_bubblewrap(path, self._programs) if os.geteuid() == 0 else path

    def init(self, uid: int | None) -> str:
        """Return the program that becomes PID 1 of the slots of `uid` (None: of this process's user)."""
        path = os.path.join(self._inits, str(uid))
        if not os.path.exists(path):
            write_first_process(path)
            if uid is not None:
                os.chown(path, uid, uid)
            # A program that its user may run but not read makes a process that is not dumpable: the agent, who is
            # that user, can neither trace PID 1 nor open its descriptors.
            os.chmod(path, 0o111)
        return path

    def place(self, slot: int) -> str:
        """Make the folder for everything of a slot and return its path; others may pass it."""
        path = os.path.join(self._places, str(slot))
        os.mkdir(path)
        os.chmod(path, 0o711)
        return path

    def remove(self) -> None:
        """Remove the folder and all that is in it, unless somebody else is quicker."""
        while os.path.isdir(self.path):
            try:
                remove_tree(self.path)
                return  # what is there by now is another daemon's
            except FileNotFoundError:  # noqa: PERF203 - beside a system call it costs nothing
                # Whoever finds a folder without a living daemon removes it too.
                continue


def _lock(folder: str) -> int:
    path = os.path.join(folder, _LOCK)
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Locked before it has its name: no other daemon may ever see it free.
    os.rename(path + ".new", path)
    return descriptor


def remove_abandoned(folder: str) -> bool:
    """Remove a state folder of this user that no daemon has, and say whether it was one.

    Raises:
        OSError: It is one, and something in it cannot be removed.
    """
    try:
        if os.lstat(folder).st_uid != os.geteuid():
            return False
        descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(folder)  # under the lock: nobody else may be at work in the tree
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True

"""Where a slot is on the host: its user, and the folders that outlive its namespaces."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
from typing import TYPE_CHECKING

from hermes_sandboxd._bubblewrap import GRADING_FILES, HOME, TMP, WORKSPACE
from hermes_sandboxd._copying import copy_tree
from hermes_sandboxd._protocol import Refusal
from hermes_sandboxd._removal import remove_tree
from hermes_sandboxd._residue import remove_residue

if TYPE_CHECKING:
    from typing import Any

    from hermes_sandboxd._lease import Host
    from hermes_sandboxd._users import Claim

_PYTHONS = ("/usr/local/bin/python3", "/usr/bin/python3")


class Place:
    """The user and the folders of one lease.

    The folder `top` belongs to the daemon, so that the agent cannot rename or remove what is in it: `work`, and at the
    levels without a file system of their own `home` and `tmp`; `copies`, of folders of the image; `grading` while the
    slot is graded.
    """

    def __init__(self, host: Host, slot: int) -> None:
        self._host = host
        self._slot = slot
        self._claim: Claim | None = None
        self._top: str | None = None

    def make(self) -> None:
        """Claim a user and make the folders.

        Raises:
            Refusal: No user is left.
        """
        host = self._host
        if host.users is not None and host.level != "none":
            self._claim = host.users.claim()
            if self._claim is None:
                raise Refusal("isolation_unavailable", "no user is left in the range of --uid-range")
        self._top = host.state.place(self._slot)
        if host.level == "user" and self.uid is not None:
            # Others cannot pass, not even to what the agent opened to everybody.
            os.chown(self._top, -1, self.uid)
            os.chmod(self._top, 0o710)
        self._make_own("work")
        if host.level != "namespaces":
            self._make_own("home")
            self._make_own("tmp")

    async def fill(self) -> None:
        """Copy what the slot gets a copy of.

        Raises:
            Refusal: It cannot be copied.
        """
        writable = self._host.root.writable
        if not writable:
            return
        if self._host.level != "namespaces":
            raise Refusal("isolation_unavailable", "copies of folders need the isolation level namespaces")
        os.mkdir(self._path("copies"))
        os.chmod(self._path("copies"), 0o711)
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._copy, writable)
        except OSError as error:
            raise Refusal("isolation_unavailable", f"a folder cannot be copied for the slot: {error}") from None

    def _copy(self, writable: tuple[str, ...]) -> None:
        for path, copy in zip(writable, self.copies):
            copy_tree(path, copy, self.uid)

    @property
    def copies(self) -> list[str]:
        """The slot's copies of folders of the image, on the host."""
        return [os.path.join(self._path("copies"), str(index)) for index in range(len(self._host.root.writable))]

    @property
    def uid(self) -> int | None:
        """The slot's user; None for the daemon's own."""
        return None if self._claim is None else self._claim.uid

    @property
    def claim(self) -> int | None:
        """The descriptor of the claim on the user."""
        return None if self._claim is None else self._claim.descriptor

    @property
    def workspace(self) -> str:
        """The workspace on the host."""
        return self._path("work")

    @property
    def grading_files(self) -> str | None:
        """The folder for grading on the host, if there is one."""
        path = self._path("grading")
        return path if os.path.isdir(path) else None

    def seen_from_inside(self) -> dict[str, Any]:
        """Return the folders as commands know them."""
        if self._host.level == "namespaces":
            return {"workspace": WORKSPACE, "home": HOME, "tmp": TMP, "files": GRADING_FILES}
        return {
            "workspace": self._path("work"),
            "home": self._path("home"),
            "tmp": self._path("tmp"),
            "files": self._path("grading"),
        }

    def grading_description(self) -> dict[str, Any]:
        """Return what the answer to `slot.grade` says besides that to `slot.open`."""
        if self.grading_files is None:
            return {}
        return {"files": self.seen_from_inside()["files"], "python": _find_python()}

    async def prepare_grading(self, archive: bytes) -> None:
        """Put the grader's files in place, and renew what the agent could have left outside the workspace.

        Raises:
            Refusal: `archive` is not a tar of regular files and folders.
        """
        await asyncio.get_running_loop().run_in_executor(None, self._renew, archive)

    def _renew(self, archive: bytes) -> None:
        # The agent may have closed it to itself; what it opened to others is below a folder that others can only pass.
        os.chmod(self.workspace, 0o700)
        for copy in self.copies:
            os.chmod(copy, 0o755)
        grading = self._path("grading")
        if os.path.isdir(grading):
            shutil.rmtree(grading)
        os.mkdir(grading)
        _unpack(archive, grading)
        if self._host.level != "namespaces":
            for name in ("home", "tmp"):
                remove_tree(self._path(name))
                self._make_own(name)
            if self.uid is not None:
                remove_residue(self.uid)

    async def remove(self, *, release: bool) -> bool:
        """Remove the folders; return whether they are verifiably gone.

        Args:
            release: Whether the user may be given to somebody else, because nothing of it lives.
        """
        clean = True
        if self._top is not None:
            try:
                if not self._remove_empty():
                    await asyncio.get_running_loop().run_in_executor(None, self._remove_all)
            except OSError as error:
                self._host.log(f"slot {self._slot}: {self._top} cannot be removed: {error}")
                clean = False
        if self._claim is not None and clean and release:
            # A user whose processes or files may still be about is not given to anybody else.
            os.close(self._claim.descriptor)
            self._claim = None
        return clean

    def _remove_empty(self) -> bool:
        if self._host.level != "namespaces" or self._top is None:
            return False
        try:
            os.rmdir(self.workspace)
            os.rmdir(self._top)
        except OSError:
            return False
        return True

    def _remove_all(self) -> None:
        assert self._top is not None
        if os.path.isdir(self._top):
            remove_tree(self._top)
        if self._host.level == "user" and self.uid is not None:
            remove_residue(self.uid)

    def _path(self, name: str) -> str:
        assert self._top is not None
        return os.path.join(self._top, name)

    def _make_own(self, name: str) -> None:
        path = self._path(name)
        os.mkdir(path, 0o700)
        if self.uid is not None:
            os.chown(path, self.uid, self.uid)


def _find_python() -> str | None:
    """Return an interpreter of the system, in a place that no agent can write."""
    for path in _PYTHONS:
        if os.access(path, os.X_OK):
            return path
    return None


def _unpack(archive: bytes, folder: str) -> None:
    """Unpack what the scorer sent: readable by everybody, writable by nobody but the daemon's user."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
            for member in tar:
                _unpack_member(tar, member, folder)
    except (tarfile.TarError, ValueError, OSError) as error:
        raise Refusal("bad_archive", f"the files for grading: {error}") from None
    for parent, _, _ in os.walk(folder, topdown=False):
        os.chmod(parent, 0o555)


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    parts = member.name.split("/")
    if member.name.startswith("/") or ".." in parts or not (member.isreg() or member.isdir()):
        raise ValueError(f"{member.name}: only regular files and folders below the top are accepted")
    path = os.path.join(folder, member.name)
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    content = tar.extractfile(member)
    assert content is not None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with content, open(descriptor, "wb") as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), 0o555 if member.mode & 0o100 else 0o444)

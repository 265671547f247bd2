"""Reads and writes files inside a slot (`slot.read`, `slot.write`).

Everything here happens inside the slot's namespaces and with its user's rights, so that following a link can lead
nowhere that the agent could not go itself. Only regular files are touched, opened without waiting.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable

from hermes_sandboxd._link import Outflow
from hermes_sandboxd._protocol import CHUNK_BYTES, INLINE_BYTES, Refusal, answer, notification, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hermes_sandboxd._surroundings import Surroundings

_OPEN = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_HASH_BYTES = 4 * CHUNK_BYTES
_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EISDIR: "is_directory",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ELOOP: "not_found",
    errno.ENAMETOOLONG: "not_found",
    errno.ENXIO: "not_a_file",
}


@contextmanager
def refusing(path: str) -> Iterator[None]:
    """Turn the errors of the operating system about `path` into refusals."""
    try:
        yield
    except OSError as error:
        raise Refusal(_KINDS.get(error.errno or 0, "not_a_file"), f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise Refusal("bad_request", f"{path!r}: {error}") from None


def check_regular(path: str, mode: int) -> None:
    """Refuse everything but a regular file."""
    if stat.S_ISDIR(mode):
        raise Refusal("is_directory", f"{path}: is a directory")
    if not stat.S_ISREG(mode):
        raise Refusal("not_a_file", f"{path}: is not a regular file")


def _check_foreign(path: str, file: int) -> None:
    """Refuse what /proc tells about this process itself, which may read it where the slot's user may not."""
    try:
        opened = os.readlink(f"/proc/self/fd/{file}")
    except OSError:
        # In a slot with a /proc of its own this process is not there.
        return
    if opened.startswith(f"/proc/{os.getpid()}/"):
        raise Refusal("permission_denied", f"{path}: {os.strerror(errno.EACCES)}")


class Reading:
    """One `slot.read`."""

    def __init__(
        self, around: Surroundings, request_id: int, params: dict[str, Any], body: bytes, done: Callable[[], None]
    ) -> None:
        self._reactor = around.reactor
        self._link = link = around.link
        self._id = request_id
        self._params = params
        self._done = done
        self._flow = Outflow(link, request_id)
        self._path = around.path(params["path"])
        self._file = -1
        self._size = 0
        self._position = params["offset"]
        self._end = 0
        self._sent = 0
        self._hash = hashlib.sha256() if params["sha256"] else None
        self._hashed = 0

    def start(self) -> None:
        """Open the file and answer, or begin to send."""
        with refusing(self._path):
            self._file = os.open(self._path, os.O_RDONLY | _OPEN)
            found = os.fstat(self._file)
            try:
                check_regular(self._path, found.st_mode)
                self._measure(found.st_size)
            except Refusal:
                os.close(self._file)
                raise
        self._reactor.on_turn = self._turn

    def _measure(self, size: int) -> None:
        if size == 0:
            # The files of /proc do not know their size.
            _check_foreign(self._path, self._file)
            size = len(os.pread(self._file, INLINE_BYTES, 0))
        self._size = size
        length = self._params["length"]
        self._end = size if length is None else min(size, self._position + length)
        if self._end - self._position > self._params["max_bytes"]:
            limit = self._params["max_bytes"]
            raise Refusal("too_large", f"{self._path}: {self._end - self._position} bytes, over the limit of {limit}")

    def _turn(self) -> None:
        try:
            with refusing(self._path):
                self._step()
        except Refusal as error:
            self._link.send(refusal(self._id, error))
            self._close()

    def _step(self) -> None:
        if self._hash is not None and self._hashed < self._size:
            # The digest is of the whole file, whatever part of it is asked for.
            data = os.pread(self._file, _HASH_BYTES, self._hashed)
            self._hash.update(data)
            self._hashed = self._hashed + len(data) if data else self._size
        elif self._sent == 0 and self._end - self._position <= INLINE_BYTES:
            self._answer(os.pread(self._file, max(0, self._end - self._position), self._position))
        elif self._position < self._end:
            self._send_chunk()
        elif self._flow.empty:
            self._answer(None)
        else:
            self._reactor.on_turn = None

    def _send_chunk(self) -> None:
        if not self._flow.open:
            self._reactor.on_turn = None
            return
        data = os.pread(self._file, min(CHUNK_BYTES, self._end - self._position), self._position)
        if not data:
            # The file has become shorter: what there was is the answer.
            self._end = self._position
            return
        self._flow.push("data", "content", self._sent, data)
        self._sent += len(data)
        self._position += len(data)

    def _answer(self, content: bytes | None) -> None:
        result = {
            "size": self._size,
            "sha256": None if self._hash is None else self._hash.hexdigest(),
            "bodies": {"content": self._sent if content is None else len(content)},
        }
        self._link.send(answer(self._id, result), content)
        self._close()

    def _close(self) -> None:
        self._reactor.on_turn = None
        os.close(self._file)
        self._done()

    def data(self, body: bytes, end: bool) -> None:
        """A read has no request body; what comes is ignored."""

    def credit(self, count: int) -> None:
        """Take credit for the content."""
        self._flow.credit(count)
        self.resume()

    def resume(self) -> None:
        """Go on sending."""
        self._flow.pump()
        self._reactor.on_turn = self._turn

    def cancel(self) -> None:
        """Refuse what is still to be sent."""
        self._link.send(refusal(self._id, Refusal("cancelled", "cancelled while it was being read")))
        self._close()


class Writing:
    """One `slot.write`.

    The content goes to a new file beside the target, which then takes its name: readers see the old content or the
    new one, never a part. Where the folder cannot be written but the file can, the file is written in place.
    """

    def __init__(
        self, around: Surroundings, request_id: int, params: dict[str, Any], body: bytes, done: Callable[[], None]
    ) -> None:
        self._reactor = around.reactor
        self._link = around.link
        self._id = request_id
        self._params = params
        self._done = done
        self._path = around.path(params["path"])
        self._temporary = ""
        self._file = -1
        self._size = 0
        self._chunks: deque[bytes] = deque()
        if body:
            self._chunks.append(body)
        self._ended = "body" not in params

    def start(self) -> None:
        """Open the target and write what there is."""
        size = self._params["body"]["size"] if "body" in self._params else sum(map(len, self._chunks))
        if size > self._params["max_bytes"]:
            raise Refusal("too_large", f"{self._path}: {size} bytes, over the limit of {self._params['max_bytes']}")
        with refusing(self._path):
            # Through links, so that a link stays one and its target changes.
            self._path = os.path.realpath(self._path)
            self._open()
        self._reactor.on_turn = self._turn

    def _open(self) -> None:
        folder, _name = os.path.split(self._path)
        if self._params["parents"]:
            os.makedirs(folder, exist_ok=True)
        try:
            check_regular(self._path, os.lstat(self._path).st_mode)
        except FileNotFoundError:
            pass
        temporary = os.path.join(folder, f".hermes-{os.urandom(8).hex()}")
        try:
            self._file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | _OPEN, 0o600)
            self._temporary = temporary
        except PermissionError:
            self._file = os.open(self._path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | _OPEN)

    def _turn(self) -> None:
        try:
            with refusing(self._path):
                self._step()
        except Refusal as error:
            self._fail(error)

    def _step(self) -> None:
        if self._chunks:
            chunk = self._chunks.popleft()
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._file, view) :]
            self._size += len(chunk)
            if "body" in self._params:
                self._link.send(notification("credit", id=self._id, bytes=len(chunk)))
            if self._size > self._params["max_bytes"]:
                raise Refusal("too_large", f"{self._path}: over the limit of {self._params['max_bytes']} bytes")
        elif self._ended:
            os.fchmod(self._file, self._params["mode"])
            if self._temporary:
                os.rename(self._temporary, self._path)
                self._temporary = ""
            self._link.send(answer(self._id, {"size": self._size}))
            self._close()
        else:
            self._reactor.on_turn = None

    def _fail(self, error: Refusal) -> None:
        self._link.send(refusal(self._id, error))
        if self._temporary:
            try:
                os.unlink(self._temporary)
            except OSError:
                # The agent took it away, or its folder; the slot's reset removes whatever is left.
                pass
        self._close()

    def _close(self) -> None:
        self._reactor.on_turn = None
        os.close(self._file)
        self._done()

    def data(self, body: bytes, end: bool) -> None:
        """Take a chunk of the content."""
        if body:
            self._chunks.append(body)
        self._ended = self._ended or end
        self._reactor.on_turn = self._turn

    def credit(self, count: int) -> None:
        """A write sends no body; credit is meaningless."""

    def resume(self) -> None:
        """A write never waits for the link."""

    def cancel(self) -> None:
        """Remove what was written so far."""
        self._fail(Refusal("cancelled", "cancelled while it was being written"))

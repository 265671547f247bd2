"""Unpacks archives inside a slot (`slot.extract`)."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Callable

from hermes_sandboxd._files import refusing
from hermes_sandboxd._protocol import CHUNK_BYTES, Refusal
from hermes_sandboxd._tar_check import check_archive
from hermes_sandboxd._tar_reader import stream_bytes
from hermes_sandboxd._unpacking import check_way, unpack
from hermes_sandboxd._worker import Worker


class Extraction(Worker):
    """One `slot.extract`."""

    takes_body = True

    def start(self) -> None:
        """Refuse a body that is too large before it is sent."""
        if self.body_size > self._most():
            raise Refusal("too_large", f"an archive of {self.body_size} bytes for at most {self.params['max_bytes']}")
        super().start()

    def _most(self) -> int:
        return stream_bytes(self.params["max_bytes"], self.params["max_entries"])

    def work(self, write: Callable[[bytes], None]) -> dict[str, Any]:
        """Look at the whole archive, then unpack it."""
        limits = {name: self.params[name] for name in ("max_bytes", "max_entries")}
        with refusing(self.path):
            archive = self._spool()
        contents = check_archive(archive, **limits)
        archive.seek(0)
        with refusing(self.path):
            os.makedirs(self.path, exist_ok=True)
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        check_way(folder, contents)
        unpack(archive, folder, **limits)
        return {"entries": contents.entries, "size": contents.size}

    def _spool(self) -> BinaryIO:
        """Keep the body in a file without a name, so that it can be read twice and does not stay."""
        try:
            descriptor = os.open(self.workspace, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            # A file system that does not have such files.
            descriptor = os.memfd_create("hermes-archive", os.MFD_CLOEXEC)
        file = os.fdopen(descriptor, "w+b", buffering=0)
        left = self._most()
        while True:
            data = memoryview(os.read(0, CHUNK_BYTES))
            if not data:
                break
            left -= len(data)
            if left < 0:
                raise Refusal("too_large", "the archive is larger than what it may unpack to")
            while data:
                data = data[file.write(data) or 0 :]
        file.seek(0)
        return file

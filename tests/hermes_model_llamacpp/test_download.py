"""Downloads by the hub's real client, from a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "tiny-Q4_K_M.gguf": b"GGUF" + b"4" * 100,
    "big/big-Q8_0-00001-of-00002.gguf": b"GGUF" + b"8" * 100,
    "big/big-Q8_0-00002-of-00002.gguf": b"GGUF" + b"9" * 100,
    "mmproj-F16.gguf": b"GGUF",
    "README.md": b"tiny",
}
FETCH = """
import sys
from hermes_core.exceptions import ConfigError
from hermes_model_llamacpp._download import download
try:
    print(download(sys.argv[1], sys.argv[2] or None))
except ConfigError as error:
    sys.exit(f"{error.message} ({error.hint})")
"""


class Hub(BaseHTTPRequestHandler):
    """As far as the client asks: the files of one repository, and one that is not there."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if not path.startswith(("/api/models/some/tiny", "/some/tiny/resolve/")):
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in FILES]
            tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in FILES]
            told = tree if "/tree/" in path else {"id": "some/tiny", "sha": COMMIT, "siblings": siblings}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        else:
            data = FILES[path.split("/", 5)[5] if path.count("/") > 4 else path.rpartition("/")[2]]
            tag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(endpoint: str, cache: Path, name: str, file: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FETCH, name, file],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "file", "fetched"),
    [
        ("some/tiny:q4", "", ["tiny-Q4_K_M.gguf"]),
        ("some/tiny", "tiny-Q4_K_M.gguf", ["tiny-Q4_K_M.gguf"]),
        ("some/tiny:Q8_0", "", ["big/big-Q8_0-00001-of-00002.gguf", "big/big-Q8_0-00002-of-00002.gguf"]),
    ],
)
def test_a_file_of_the_hub_is_fetched_with_all_its_parts(
    tmp_path: Path, name: str, file: str, fetched: list[str]
) -> None:
    with hub() as endpoint:
        done = fetch(endpoint, tmp_path, name, file)
    assert done.returncode == 0, done.stderr
    first = done.stdout.strip()
    assert first.endswith(fetched[0])
    snapshot = first.removesuffix(fetched[0])
    for each in fetched:
        with open(snapshot + each, "rb") as got:
            assert got.read() == FILES[each]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("some/tiny", "some/tiny has 2 GGUF files (--file FILE: big/big-Q8_0-00001-of-00002.gguf, tiny-Q4_K_M.gguf)"),
        ("some/tiny:Q2", "some/tiny has no GGUF files of Q2"),
        ("no/such", "no/such cannot be downloaded: "),
    ],
)
def test_what_cannot_be_fetched_is_one_line(tmp_path: Path, name: str, said: str) -> None:
    with hub() as endpoint:
        done = fetch(endpoint, tmp_path, name)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1

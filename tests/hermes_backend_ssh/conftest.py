"""A real ssh server on the loopback interface, with keys of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.conftest import cannot_run

from hermes_backend_ssh import SshBackend, SshConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ORDINARY = os.environ.get("HERMES_TEST_SSH_USER", "hermes-ssh")
PATIENCE_S = 30.0

CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
{further}
"""


@dataclass(frozen=True)
class Server:
    """An ssh server.

    Attributes:
        folder: Its files, the keys among them.
        port: Where it listens.
        pid: Its process.
    """

    folder: Path
    port: int
    pid: int

    def settings(self, user: str) -> dict[str, object]:
        """Return the settings of the backend for a user."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": user,
            "key": self.folder / "key",
            "known_hosts": self.folder / "known_hosts",
        }


@contextmanager
def serving(
    program: str, folder: Path, further: str = "", wrapper: Sequence[str] = (), user: str | None = None
) -> Iterator[Server]:
    """Run a server on a free port; keys are made if the folder has none.

    Args:
        program: The server's.
        folder: For its files.
        further: Lines of its configuration.
        wrapper: What it is started with.
        user: Who runs it, if not this user.
    """
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "key"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    configuration = folder / f"config-{port}"
    configuration.write_text(CONFIG.format(port=port, folder=folder, further=further))
    public = " ".join((folder / "host_key.pub").read_text().split()[:2])
    with (folder / "known_hosts").open("a") as file:
        file.write(f"[127.0.0.1]:{port} {public}\n")
    if user is not None:
        for path in folder.iterdir():
            shutil.chown(path, user)
    with (folder / f"log-{port}").open("w") as log:
        process = subprocess.Popen(
            [*wrapper, program, "-D", "-e", "-f", configuration], stdin=subprocess.DEVNULL, stderr=log, user=user
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(port):
            assert process.poll() is None, (folder / f"log-{port}").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield Server(folder, port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def server(sshd: str) -> Iterator[Server]:
    """The server that tests share."""
    with tempfile.TemporaryDirectory(prefix="hermes-sshd-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with serving(sshd, Path(folder)) as server:
            yield server


@pytest.fixture
def serve(sshd: str) -> Iterator[Callable[..., Server]]:
    """Starts servers that are unlike the shared one."""
    with ExitStack() as stack:

        def serve(further: str = "", **arguments: Any) -> Server:  # noqa: ANN401
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hermes-sshd-", dir="/tmp")))
            folder.chmod(0o755)
            return stack.enter_context(serving(sshd, folder, further, **arguments))

        yield serve


@pytest.fixture(scope="session")
def ordinary() -> str:
    """An ordinary user who can log in: this one, unless this is root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        pwd.getpwnam(ORDINARY)
    except KeyError:
        cannot_run("ssh", f"there is no user {ORDINARY} to log in as (run .ci/engines/ssh.sh)")
    return ORDINARY


@pytest.fixture(scope="session")
def place(server: Server) -> Callable[[str], Path]:
    """Returns the folder on the "other" machine for everything of a user; what was put there stays for other tests."""

    def place(user: str) -> Path:
        folder = server.folder / f"there-{user}"
        if not folder.exists():
            folder.mkdir(mode=0o755)
            shutil.chown(folder, user)
        return folder

    return place


@pytest.fixture
def there(place: Callable[[str], Path], ordinary: str) -> Iterator[Path]:
    """The folder of the ordinary user, in which no sandbox may be left."""
    folder = place(ordinary)
    yield folder
    sandboxes = folder / "sandboxes"
    assert not sandboxes.is_dir() or os.listdir(sandboxes) == []


@pytest.fixture
def make(server: Server, there: Path, ordinary: str) -> Callable[..., SshBackend]:
    """Makes backends for the ordinary user."""

    def make(**settings: object) -> SshBackend:
        values = {**server.settings(ordinary), "remote_dir": str(there), **settings}
        return SshBackend(SshConfig.model_validate(values))

    return make


@pytest.fixture
def owner() -> str:
    """An owner that has nothing yet."""
    return f"test-{uuid.uuid4().hex[:8]}"

"""As root: runs the other tests of this folder as an ordinary user, each file by itself.

And what only root can arrange: machines on which something is missing, in a mount namespace of the test's own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.hermes_backend_singularity.engine import IMAGE, ROOT_FOLDER
from tests.hermes_backend_singularity.ordinary_user import WORLD, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

pytestmark = pytest.mark.apptainer

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)


START = """
import anyio, sys
from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core.exceptions import HermesError
from hermes_core.sandbox import SandboxSpec

async def main():
    config = SingularityConfig(image=sys.argv[1], unpack=sys.argv[2] == "unpack")
    async with SingularityBackend(config) as backend:
        await backend.start(SandboxSpec(slots=1), "owner", "one")

try:
    anyio.run(main)
except HermesError as error:
    print(type(error).__name__, error.message, error.hint, sep="\\n")
else:
    print("started")
"""


@pytest.mark.parametrize("name", FILES)
def test_as_an_ordinary_user(name: str) -> None:
    checkout = WORLD / "checkout"
    folder = checkout / HERE.relative_to(HERE.parents[1])
    options = ("-rs", "-p", "no:cacheprovider", "--rootdir", str(checkout), "-c", str(checkout / "pyproject.toml"))
    done = run(["-m", "pytest", *options, str(folder / name)])
    print(done.stdout)  # noqa: T201 - pytest shows it if the test fails
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-5000:]}"


def test_a_machine_like_this_one_is_fine() -> None:
    assert start(ROOT_FOLDER) == ["started"]


def test_without_user_namespaces_the_setting_is_named() -> None:
    around = (sys.executable, str(HERE / "no_user_namespaces.py"))
    kind, message, hint = start(ROOT_FOLDER, around=around)
    assert kind == "BackendUnavailableError"
    assert message.startswith("the container cannot be started: Failed to create user namespace")
    assert hint == "ask for sysctl user.max_user_namespaces=15000"


def test_without_fuse_it_is_said_how_to_do_without() -> None:
    closed = "touch fuse && chmod 600 fuse && mount --bind fuse /dev/fuse"
    kind, message, hint = start(IMAGE, unpack=False, prepare=closed)
    assert kind == "BackendUnavailableError"
    assert "fuse" in message
    assert "-B unpack=true" in hint
    assert start(ROOT_FOLDER, prepare=closed) == ["started"]


def test_without_space_the_settings_are_named() -> None:
    full = "mkdir full && mount -t tmpfs -o size=10m,mode=1777 tmpfs full"
    kind, message, hint = start(IMAGE, prepare=full, further={"TMPDIR": str(WORLD / "full")})
    assert kind == "BackendUnavailableError"
    assert "cannot be converted" in message
    assert "no space left on device" in message
    assert "-B scratch_dir=FOLDER" in hint


def test_a_disk_from_which_nothing_may_be_run_is_refused() -> None:
    locked = "mkdir locked && mount -t tmpfs -o noexec,mode=1777 tmpfs locked"
    kind, message, hint = start(ROOT_FOLDER, prepare=locked, further={"TMPDIR": str(WORLD / "locked")})
    assert kind == "BackendUnavailableError"
    assert "noexec" in message
    assert hint == "choose another folder: -B scratch_dir=FOLDER"


def test_root_is_told_to_be_somebody_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, str(ROOT_FOLDER), "unpack"], capture_output=True, text=True, check=True
    )
    kind, message, hint = done.stdout.splitlines()
    assert kind == "BackendUnavailableError"
    assert message == "the backend 'singularity' does not run as root"
    assert "runuser" in hint


def start(
    image: Path,
    *,
    unpack: bool = True,
    prepare: str = "",
    around: Sequence[str] = (),
    further: Mapping[str, str] | None = None,
) -> list[str]:
    """Start one container as the user; return what was printed."""
    done = run(["-c", START, str(image), "unpack" if unpack else "fuse"], further, prepare, around)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()

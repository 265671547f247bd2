from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from hermes_sandboxd._first_process import _MACHINES, program, write_first_process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    write_first_process(str(path))
    path.chmod(0o111)
    return path


def test_it_says_what_it_is_told_and_ends_with_its_input(path: Path) -> None:
    said = os.urandom(100_000)
    done = subprocess.run([path], input=said, capture_output=True, check=True, env={}, timeout=10)
    assert done.stdout == said


def test_it_ends_when_nobody_listens(path: Path) -> None:
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.write(b"x")
        process.stdin.close()
        process.wait(10)


@pytest.mark.parametrize("machine", _MACHINES.values(), ids=_MACHINES.keys())
def test_it_is_small_and_depends_on_nothing(machine: object) -> None:
    made = program(machine)  # type: ignore[arg-type]
    assert made.startswith(b"\x7fELF")
    assert len(made) < 300
    assert b"/lib" not in made

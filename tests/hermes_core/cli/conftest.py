from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from pathlib import Path


class Cli(Protocol):
    def __call__(self, *arguments: str, timeout_s: float = 60, **env: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def hermes(tmp_path: Path) -> Cli:
    """Runs the command line as a user does, in a folder and a home of its own."""
    import os

    def run(*arguments: str, timeout_s: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from hermes_core.cli import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path), "COLUMNS": "200", **env},
            check=False,
        )

    return run

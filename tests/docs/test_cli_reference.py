from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


def test_the_reference_of_the_command_line_is_current() -> None:
    written = subprocess.run([sys.executable, "-m", "hermes_core.cli._reference"], capture_output=True, check=True)
    assert PAGE.read_bytes() == written.stdout, "nox -s docs writes it anew"

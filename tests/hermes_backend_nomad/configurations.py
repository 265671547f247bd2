"""Configurations in HCL, as tests read them, and as the program `nomad` does where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

import hcl2
import pytest

__all__ = ["NOMAD", "nomad", "parsed", "with_nomad"]

NOMAD = shutil.which("nomad")
MARKS = ("__is_block__", "__comments__", "__inline_comments__")
with_nomad = pytest.mark.skipif(NOMAD is None, reason="cannot run: nomad is not on PATH")


def nomad(*arguments: str, **env: str) -> str:
    """Run the program, which must not fail, and return what it said."""
    done = subprocess.run(
        [str(NOMAD), *arguments], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def parsed(text: str) -> Any:
    """What a text in HCL says, without the marks of its parser."""
    return _plain(hcl2.loads(text))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.strip('"'): _plain(inner) for name, inner in value.items() if name not in MARKS}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value

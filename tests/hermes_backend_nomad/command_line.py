"""The command `hermes`, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.hermes_backend_nomad.conftest import DOCKER_BASE, SMALL
from tests.hermes_backend_singularity.engine import IMAGE
from tests.hermes_backend_singularity.ordinary_user import USER

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["hermes", "program", "settings_of"]

IMAGES = {"nomad": {"image": DOCKER_BASE}, "nomad-singularity": {"image": str(IMAGE), "user": USER}}


def program(*arguments: str) -> list[str]:
    """The command that is `hermes`."""
    return [sys.executable, "-c", "from hermes_core.cli import main; main()", *arguments]


def hermes(folder: Path, *arguments: str, further: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end, in a folder."""
    return subprocess.run(
        program(*arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **(further or {})},
        check=False,
    )


def settings_of(name: str, address: str, job_id: str, **settings: object) -> list[str]:
    """The options that choose a backend, with small sandboxes."""
    values = {"nomad_address": address, "sandbox_job_id": job_id, **SMALL, **IMAGES[name], **settings}
    pairs = [("-B", f"{field}={value}") for field, value in values.items() if value is not None]
    return ["--backend", name, *(option for pair in pairs for option in pair)]

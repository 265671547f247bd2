"""The engine of these tests, as `.ci/engines/apptainer.sh` makes it ready."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.hermes_backend_singularity.ordinary_user import USER, exists

__all__ = ["IMAGE", "ROOT_FOLDER", "obstacle"]

CACHE = Path(os.environ.get("HERMES_ENGINES_CACHE", "/var/cache/hermes-engines")) / "apptainer"
IMAGE = CACHE / "base.sif"
ROOT_FOLDER = CACHE / "base"


def obstacle() -> str | None:
    """Say what is missing, or None."""
    if shutil.which("apptainer") is None:
        return "apptainer is not installed"
    if not IMAGE.exists():
        return f"{IMAGE} is not there"
    if os.geteuid() == 0 and not exists():
        return f"there is no user {USER}"
    return None

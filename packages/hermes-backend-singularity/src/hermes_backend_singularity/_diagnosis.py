"""Says for `hermes doctor` whether containers can be started here."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from hermes_backend_singularity._engine import container_environment, find_engine, forbidden_user_namespaces
from hermes_core.diagnosis import Finding
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["diagnose"]

NAME = "backend singularity"


def diagnose() -> Iterator[Finding]:
    """Look for the engine, and for settings that forbid what it needs; nothing is started."""
    try:
        engine = find_engine(None)
        version = _version(str(engine))
    except BackendUnavailableError as error:
        yield Finding(NAME, "missing", error.message, error.hint or "")
    except (OSError, subprocess.SubprocessError) as error:
        yield Finding(NAME, "broken", str(error))
    else:
        if os.geteuid() == 0:
            yield Finding(NAME, "missing", f"{version}, but not for root", "run Hermes as an ordinary user")
        elif (change := forbidden_user_namespaces()) is not None:
            yield Finding(NAME, "broken", f"{version}, but users may make no namespaces", f"ask for {change}")
        else:
            yield Finding(NAME, "ok", f"{version} ({engine})")


def _version(engine: str) -> str:
    done = subprocess.run(
        [engine, "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=container_environment(),
        timeout=20,
        check=True,
    )
    return done.stdout.strip()

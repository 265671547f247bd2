"""What launches the daemon inside a sandbox."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import hermes_sandboxd

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Runtime", "host_runtime"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """How to launch `hermes-sandboxd` somewhere.

    Attributes:
        arguments: The command up to, and without, the subcommand (`serve`, `relay`, …).
        environment: Variables that it needs, on top of none.
        files: Files and folders that must be readable where it runs, by where they are on this host.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def host_runtime() -> Runtime:
    """Return how to launch the installed daemon with this interpreter on this host."""
    package = Path(hermes_sandboxd.__file__).resolve().parent
    # Isolated and without site-packages, as the package's own `daemon_arguments`: it starts in half the time.
    return Runtime(arguments=(sys.executable, "-I", "-S", str(package)), files=(package,))

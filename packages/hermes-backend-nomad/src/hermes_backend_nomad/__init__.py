"""The sandbox backends `nomad` and `nomad-singularity`: slots on a Nomad cluster, with Docker and with Apptainer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_backend_nomad._config import NomadConfig as NomadConfig
    from hermes_backend_nomad._config import NomadSingularityConfig as NomadSingularityConfig

__all__ = ["NomadConfig", "NomadSingularityConfig"]

# Imported when first used: the plugin module lives in this package and must cost nothing.
_HOMES = {"NomadConfig": "_config", "NomadSingularityConfig": "_config"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

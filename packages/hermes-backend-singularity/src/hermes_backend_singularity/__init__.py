"""The backend `singularity`: slots in Apptainer containers, on an HPC node or any other, without root."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_backend_singularity._backend import SingularityBackend as SingularityBackend
    from hermes_backend_singularity._config import SingularityConfig as SingularityConfig

__all__ = ["SingularityBackend", "SingularityConfig"]

# Imported when first used: the plugin module lives in this package and must cost nothing.
_HOMES = {"SingularityBackend": "_backend", "SingularityConfig": "_config"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

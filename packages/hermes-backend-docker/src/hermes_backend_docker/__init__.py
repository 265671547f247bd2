"""The sandbox backend `docker`: many slots in shared containers, or one container per task."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_backend_docker._backend import DockerBackend as DockerBackend
    from hermes_backend_docker._config import DockerConfig as DockerConfig
    from hermes_backend_docker._missing import build_missing as build_missing

__all__ = ["DockerBackend", "DockerConfig", "build_missing"]

# Imported when first used: the plugin module lives in this package and must cost nothing.
_HOMES = {"DockerBackend": "_backend", "DockerConfig": "_config", "build_missing": "_missing"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

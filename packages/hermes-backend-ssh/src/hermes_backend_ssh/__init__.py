"""The backend `ssh`: slots on a machine that is reached by ssh."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hermes_backend_ssh._backend import SshBackend as SshBackend
    from hermes_backend_ssh._config import SshConfig as SshConfig

__all__ = ["SshBackend", "SshConfig"]

# Imported when first used: the plugin module lives in this package and must cost nothing.
_HOMES = {"SshBackend": "_backend", "SshConfig": "_config"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

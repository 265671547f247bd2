"""The backend `local`: slots in namespaces on this machine."""

from hermes_core.default_plugins.local_backend._backend import LocalBackend
from hermes_core.default_plugins.local_backend._config import LocalConfig

__all__ = ["LocalBackend", "LocalConfig"]

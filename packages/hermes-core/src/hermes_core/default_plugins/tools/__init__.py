"""The built-in sandbox tools."""

from hermes_core.default_plugins.tools._files import read_file, write_file
from hermes_core.default_plugins.tools._terminal import terminal

__all__ = ["read_file", "terminal", "write_file"]

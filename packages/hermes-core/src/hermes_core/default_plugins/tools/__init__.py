"""The built-in sandbox tools."""

from hermes_core.default_plugins.tools._files import read_file, write_file
from hermes_core.default_plugins.tools._terminal import terminal
from hermes_core.default_plugins.tools._terminal_stateful import terminal_stateful
from hermes_core.default_plugins.tools._tmux import tmux

__all__ = ["read_file", "terminal", "terminal_stateful", "tmux", "write_file"]

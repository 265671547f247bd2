"""The built-in toolsets."""

from hermes_core.toolsets import Toolset

__all__ = ["DEFAULT", "FILESYSTEM", "SAFE", "SANDBOX", "TERMINAL", "TERMINAL_STATEFUL"]

TERMINAL = Toolset("terminal", "Run commands in the sandbox", tools=("terminal",))
TERMINAL_STATEFUL = Toolset(
    "terminal_stateful", "A shell and terminals that persist", tools=("terminal_stateful", "tmux")
)
FILESYSTEM = Toolset("filesystem", "Read and write files in the sandbox", tools=("read_file", "write_file"))
SANDBOX = Toolset("sandbox", "Everything that works in the sandbox", includes=("terminal", "filesystem"))
DEFAULT = Toolset("default", "What an agent usually needs", includes=("sandbox",))
SAFE = Toolset("safe", "No command execution", includes=("filesystem",))

"""Toolsets: named, composable selections of tools."""

from hermes_core.toolsets._selection import EVERYTHING, select_tools
from hermes_core.toolsets._toolset import Toolset

__all__ = ["EVERYTHING", "Toolset", "select_tools"]

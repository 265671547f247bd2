"""Tools: callables with a JSON schema."""

from hermes_core.tools._function_tool import FunctionTool, Need, tool

__all__ = ["FunctionTool", "Need", "tool"]

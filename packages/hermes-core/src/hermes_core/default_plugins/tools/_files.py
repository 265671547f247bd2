"""The tools `read_file` and `write_file`."""

from __future__ import annotations

from hermes_core.exceptions import ToolError
from hermes_core.execution import Slot
from hermes_core.tools import tool

__all__ = ["read_file", "write_file"]

MOST_CHARACTERS = 100_000
MOST_BYTES = 4 * MOST_CHARACTERS  # UTF-8 takes at most four bytes a character


@tool(timeout_s=30.0)
async def read_file(path: str, slot: Slot) -> str:
    """Read a text file of the sandbox.

    Args:
        path: The file, relative to the workspace or absolute. At most 100,000 characters.
    """
    data = await slot.read_file(path, max_bytes=MOST_BYTES)
    text = data.decode("utf-8", errors="replace")
    if len(text) > MOST_CHARACTERS:
        raise ToolError(f"{path} has {len(text)} characters; at most {MOST_CHARACTERS} can be read at once")
    return text


@tool(timeout_s=30.0)
async def write_file(path: str, content: str, slot: Slot) -> str:
    """Write a text file in the sandbox; missing folders are made, an existing file is replaced.

    Args:
        path: The file, relative to the workspace or absolute.
        content: The whole new content, at most 100,000 characters.
    """
    if len(content) > MOST_CHARACTERS:
        raise ToolError(f"content has {len(content)} characters; at most {MOST_CHARACTERS} can be written at once")
    await slot.write_file(path, content)
    return f"wrote {len(content.encode())} bytes to {path}"

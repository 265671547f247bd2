"""Names of tools, in formats where a name stands outside JSON."""

from __future__ import annotations

import re

__all__ = ["NAME", "written_name"]

NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_NAME = re.compile(NAME)


def written_name(name: str) -> str:
    """The name, as it is.

    Raises:
        ValueError: The format has no words for it.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"this tool-call format cannot write the tool name {name[:100]!r}")
    return name

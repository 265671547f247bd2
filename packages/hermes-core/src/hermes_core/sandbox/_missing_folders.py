"""Tells of folders that slots were to have copies of, and that an image does not have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MissingFolders"]

_logger = logging.getLogger(__name__)


class MissingFolders:
    """What the daemons of one backend miss, each of which is said once: tasks' images differ, and there may be many."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def warn(self, folders: Iterable[str], image: str | None) -> None:
        """Say which folders are missing.

        Args:
            folders: Those that a daemon misses.
            image: Which does not have them.
        """
        for folder in folders:
            if folder not in self._told:
                self._told.add(folder)
                _logger.warning("slots have no copy of %s where the image has no such folder, as in %s", folder, image)

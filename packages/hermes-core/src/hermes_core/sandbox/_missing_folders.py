"""Folders of images that slots have copies of, and those that an image does not have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["MissingFolders", "WritableArguments", "writable_arguments"]

_logger = logging.getLogger(__name__)


class WritableArguments(TypedDict):
    """Those of `hermes_sandboxd.daemon_arguments` about folders that slots may change."""

    writable: Sequence[str]
    writable_if_there: Sequence[str]


def writable_arguments(folders: Sequence[str], *, tasks_image: bool) -> WritableArguments:
    """Return how a daemon is told of the folders that a backend's `writable` names.

    Args:
        folders: Of the image.
        tasks_image: Whether the image is that of whoever leases, and not the configured one: one setting is for many
            then, and not all have the same folders.
    """
    return {"writable": () if tasks_image else folders, "writable_if_there": folders if tasks_image else ()}


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

"""Where the daemons of this machine keep their sockets and workspaces."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import SandboxInfo, check_private_folder, check_socket_path, default_state_folder
from hermes_sandboxd import STATE_LOCK, list_sandboxes, remove_sandbox, sandbox_title, socket_beside

if TYPE_CHECKING:
    from pathlib import Path

    from hermes_sandboxd import SandboxFacts

__all__ = ["clean_up", "existing_root", "folder_of", "inspect", "socket_of", "state_root", "sweep"]

_logger = logging.getLogger(__name__)


def state_root(configured: Path | None) -> Path:
    """Return the folder above all state folders, made and checked.

    Raises:
        BackendUnavailableError: It cannot be made, or somebody else could meddle with it.
    """
    root = _root(configured)
    try:
        root.mkdir(mode=0o711, parents=configured is not None, exist_ok=True)
        check_private_folder(root)
    except OSError as error:
        raise BackendUnavailableError(
            f"the state folder {root} cannot be made: {error.strerror}",
            hint="choose another: -B state_dir=FOLDER",
        ) from error
    return root


def existing_root(configured: Path | None) -> Path | None:
    """Return the folder above all state folders, checked, or None if nobody has made it yet.

    Raises:
        BackendUnavailableError: Somebody else could meddle with it.
    """
    root = _root(configured)
    try:
        check_private_folder(root)
    except OSError:
        return None
    return root


def _root(configured: Path | None) -> Path:
    return configured.absolute() if configured is not None else default_state_folder("hermes")


def folder_of(root: Path, owner: str, name: str) -> Path:
    """Return the state folder of a sandbox.

    Raises:
        ConfigError: No socket can have so long a path.
    """
    folder = root / sandbox_title(owner, name)
    check_socket_path(socket_of(folder), root)
    return folder


def socket_of(folder: Path) -> Path:
    """Return the path of the socket of a sandbox with that state folder."""
    return folder.with_name(socket_beside(folder.name))


def inspect(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Return the sandboxes of an owner, or of everyone, by their state folders and sockets."""
    return [SandboxInfo(*facts) for facts in _found(root, owner)]


def clean_up(root: Path, owner: str | None) -> list[SandboxInfo]:
    """Remove what no process is left of, of an owner or of everyone; return what was removed."""
    left = [facts for facts in _found(root, owner) if facts.state == "left behind"]
    return [SandboxInfo(*facts) for facts in left if _remove(root / facts.title)]


def sweep(root: Path) -> None:
    """Remove the little that is left of sandboxes whose every process was killed at once.

    Folders with a lock, which may be large, are swept by the next daemon.
    """
    for facts in _found(root, None):
        if facts.state == "left behind" and not (root / facts.title / STATE_LOCK).exists():
            _remove(root / facts.title)


def _found(root: Path, owner: str | None) -> list[SandboxFacts]:
    return [facts for facts in list_sandboxes(os.fspath(root)) if owner in (None, facts.owner)]


def _remove(folder: Path) -> bool:
    try:
        return remove_sandbox(os.fspath(folder))
    except OSError as error:
        _logger.warning("%s is left: %s", folder, error)
        return False

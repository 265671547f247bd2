"""Where unpacked images, workspaces and converted images are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import check_private_folder

if TYPE_CHECKING:
    from hermes_backend_singularity._config import SingularityConfig

__all__ = ["CACHE_SETTING", "SCRATCH_SETTING", "cache_folder", "is_ours", "make_private", "scratch_folder"]

CACHE_SETTING, SCRATCH_SETTING = "cache_dir", "scratch_dir"
_SCRATCH = ("SLURM_TMPDIR", "APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR")
_CACHES = ("APPTAINER_CACHEDIR", "SINGULARITY_CACHEDIR", "HERMES_CACHE", "XDG_CACHE_HOME")


def scratch_folder(config: SingularityConfig) -> Path:
    """Return the folder, on a disk of this machine, for what does not outlive its use; it need not exist."""
    above = config.scratch_dir or _first_set(_SCRATCH, Path("/tmp"))
    return above.resolve() / f"hermes-singularity-{os.geteuid()}"


def cache_folder(config: SingularityConfig) -> Path:
    """Return the folder for converted images; it need not exist."""
    above = config.cache_dir or _first_set(_CACHES, Path.home() / ".cache")
    return above.resolve() / f"hermes-singularity-{os.geteuid()}"


def _first_set(names: tuple[str, ...], default: Path) -> Path:
    return next((Path(os.environ[name]) for name in names if os.environ.get(name)), default)


def make_private(folder: Path, setting: str) -> Path:
    """Make a folder that only this user can write, if it is not there.

    Args:
        folder: The folder.
        setting: Name of the setting that chooses another.

    Raises:
        BackendUnavailableError: It cannot be made, or somebody else could meddle with it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BackendUnavailableError(
            f"the folder {folder} cannot be made: {error.strerror}", hint=f"choose another: -B {setting}=FOLDER"
        ) from error
    is_ours(folder, setting)
    return folder


def is_ours(folder: Path, setting: str) -> bool:
    """Say whether there is a folder, which must belong to this user alone.

    Raises:
        BackendUnavailableError: Somebody else could meddle with it.
    """
    try:
        check_private_folder(folder, what="folder", setting=setting)
    except OSError:
        return False
    return True

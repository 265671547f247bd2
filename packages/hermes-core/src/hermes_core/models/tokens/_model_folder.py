"""Where a model's files are: in a folder that is named, or in the cache of the hub's client."""

from __future__ import annotations

import os
from pathlib import Path

from hermes_core.exceptions import ConfigError

__all__ = ["hub_snapshots", "model_folder"]


def model_folder(name: Path) -> Path:
    """The folder with a model's tokenizer.

    Args:
        name: A folder, or `OWNER/NAME` of a model of the hub whose files are in its client's cache. Nothing is
            downloaded.

    Raises:
        ConfigError: It is neither.
    """
    folder = name.expanduser()
    if folder.is_dir():
        return folder
    for cached in hub_snapshots(str(name)):
        if (cached / "tokenizer.json").is_file():
            return cached
    fetch = f"; or hf download {name} --include 'token*' --include '*.jinja'" if str(name).count("/") == 1 else ""
    raise ConfigError(
        f"there is no tokenizer in {name}: tokenizer.json is missing",
        hint=f"give the folder of a model that has tokenizer.json and tokenizer_config.json{fetch}",
    )


def hub_snapshots(name: str) -> list[Path]:
    """Where the hub's client keeps the files of a model, newest first; nothing if it has none.

    Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    own, home = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    cache = Path(own) if own else (Path(home) if home else caches / "huggingface") / "hub"
    folder = cache.expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    return sorted(folder.iterdir(), key=lambda each: -each.stat().st_mtime) if folder.is_dir() else []

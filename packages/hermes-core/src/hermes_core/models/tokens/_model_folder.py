"""Where a model's files are: in a folder that is named, or in the cache of the hub's client."""

from __future__ import annotations

import os
from pathlib import Path

from hermes_core.exceptions import ConfigError

__all__ = ["model_folder"]


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
    cached = [each for each in _snapshots(str(name)) if (each / "tokenizer.json").is_file()]
    if cached:
        return max(cached, key=lambda each: each.stat().st_mtime)
    fetch = f"; or hf download {name} --include 'token*' --include '*.jinja'" if str(name).count("/") == 1 else ""
    raise ConfigError(
        f"there is no tokenizer in {name}: tokenizer.json is missing",
        hint=f"give the folder of a model that has tokenizer.json and tokenizer_config.json{fetch}",
    )


def _snapshots(name: str) -> list[Path]:
    """Where the client keeps a model's files.

    Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    own, home = os.environ.get("HF_HUB_CACHE"), os.environ.get("HF_HOME")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    cache = Path(own) if own else (Path(home) if home else caches / "huggingface") / "hub"
    folder = cache.expanduser() / f"models--{name.replace('/', '--')}" / "snapshots"
    return list(folder.iterdir()) if folder.is_dir() else []

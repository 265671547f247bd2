"""Which of the variables that a daemon was started with are those of the image around it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = frozenset(("HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER", "_"))
"""Something else in a slot."""
_OF_ENGINES = ("APPTAINER", "HERMES_", "NOMAD_", "PROMPT_COMMAND", "PS1", "SINGULARITY", "USER_PATH")
"""Of the engine that started the container, and secrets of the daemon."""
_DEFAULTS = (("LANG", "C"), ("LC_CTYPE", "C.UTF-8"), ("LD_LIBRARY_PATH", "/.singularity.d/libs"))
"""What Apptainer and Python set where the image says nothing."""


def image_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the image."""
    return {
        name: text
        for name, text in environment.items()
        if name not in _OWN and not name.startswith(_OF_ENGINES) and (name, text) not in _DEFAULTS
    }

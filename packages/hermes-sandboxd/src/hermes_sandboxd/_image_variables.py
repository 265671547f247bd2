"""Which of the variables that a daemon was started with are those of the image around it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_SLOTS = frozenset(("HOME", "HOSTNAME", "LOGNAME", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER", "_"))
"""Something else in a slot."""
_OF_DAEMON = ("HERMES_SANDBOX_", "NOMAD_")
"""Secrets, and what Nomad tells a task."""
_OF_PYTHON = ("LC_CTYPE", "C.UTF-8")
"""What the daemon's own interpreter sets where the image says nothing of a language."""
_OF_APPTAINER = ("APPTAINER", "PROMPT_COMMAND", "PS1", "SINGULARITY", "USER_PATH")
_APPTAINER = ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
"""One of them is there in every container of Apptainer."""
_LIBRARIES = "/.singularity.d/libs"
"""Where Apptainer puts the machine's drivers for GPUs. It names the folder whether there are any or not, behind what
the image says of libraries; but not in images that are plain folders."""


def image_variables(environment: Mapping[str, str], libraries: str = _LIBRARIES) -> dict[str, str]:
    """Return the variables of the image.

    Args:
        environment: What the daemon was started with.
        libraries: Folder in which Apptainer has put drivers, if there are any.
    """
    found = {
        name: text
        for name, text in environment.items()
        if name not in _OF_SLOTS and not name.startswith(_OF_DAEMON) and (name, text) != _OF_PYTHON
    }
    if any(name in environment for name in _APPTAINER):
        unsaid = (("LANG", "C"), ("LD_LIBRARY_PATH", _LIBRARIES))
        found = {
            name: text
            for name, text in found.items()
            if not name.startswith(_OF_APPTAINER) and (name, text) not in unsaid
        }
        if _has_files(libraries):
            found.setdefault("LD_LIBRARY_PATH", _LIBRARIES)
    return found


def _has_files(folder: str) -> bool:
    try:
        return bool(os.listdir(folder))
    except OSError:
        return False

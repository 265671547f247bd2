"""Templates of tasks: the small part of the language that reads variables and the environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .drivers import DriverError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .alloc_dir import TaskDir
    from .documents import Doc

    Lookup = Callable[[str], dict[str, str] | None]

__all__ = ["MissingVariable", "paths_of", "read_environment", "render", "write"]

ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)


class MissingVariable(Exception):
    """A template waits for a variable that is not there."""


def paths_of(template: Doc) -> set[str]:
    """Return the variables that a template reads."""
    return set(re.findall(r'nomadVar\s+"([^"]+)"', template["EmbeddedTmpl"] or ""))


def pieces(text: str) -> list[tuple[str, bool]]:
    """Split into text and actions; a `-` trims the white space next to it."""
    found: list[tuple[str, bool]] = []
    at, trim = 0, False
    for action in ACTION.finditer(text):
        before = text[at : action.start()]
        before = before.lstrip() if trim else before
        found += [(before.rstrip() if action[1] else before, False), (action[2], True)]
        at, trim = action.end(), bool(action[3])
    return [*found, (text[at:].lstrip() if trim else text[at:], False)]


def render(template: Doc, variable: Lookup, names: dict[str, str]) -> str:
    """Fill in a template.

    Raises:
        MissingVariable: A variable does not exist; the task waits for it.
        DriverError: The template uses what the stand-in does not know.
    """
    written: list[str] = []
    within: list[dict[str, str]] = []
    for text, action in pieces(template["EmbeddedTmpl"] or ""):
        if not action:
            written.append(text)
        elif found := re.fullmatch(r'with\s+nomadVar\s+"([^"]+)"', text):
            items = variable(found[1])
            if items is None:
                raise MissingVariable(found[1])
            within.append(items)
        elif text == "end" and within:
            within.pop()
        elif (found := re.fullmatch(r'(?:\.([\w-]+)|index\s+\.\s+"([^"]+)")(?:\.Value)?', text)) and within:
            written.append(within[-1].get(found[1] or found[2], "<no value>"))
        elif found := re.fullmatch(r'env\s+"([^"]+)"', text):
            written.append(names.get(found[1], ""))
        elif not text.startswith("/*"):
            raise DriverError(f"template: the stand-in does not know the action {{{{ {text} }}}}")
    return "".join(written)


def write(template: Doc, text: str, folder: TaskDir, names: dict[str, str]) -> Path:
    """Write a rendered template to its place in the task's folder."""
    wanted = re.sub(r"\$\{(\w+)\}", lambda found: names.get(found[1], found[0]), template["DestPath"])
    target = folder.inside(wanted)
    if target is None:
        raise DriverError(f"template destination path escapes alloc directory: {wanted}")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    new.touch(0o600)
    new.write_text(text)
    new.chmod(int(template["Perms"] or "0644", 8))
    if template.get("Uid") is not None or template.get("Gid") is not None:
        ids = [-1 if template.get(key) is None else int(template[key]) for key in ("Uid", "Gid")]
        os.chown(new, *ids)
    new.replace(target)
    return target


def read_environment(text: str) -> dict[str, str]:
    """Read `NAME=value` lines as an `Envvars` template writes them."""
    names = {}
    for line in text.splitlines():
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not key.startswith("#"):
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            names[key.strip()] = value[1:-1] if quoted else value.strip()
    return names

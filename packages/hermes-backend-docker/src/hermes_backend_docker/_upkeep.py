"""Finds the containers of all runs, and removes those that dead ones left."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes_backend_docker._container import LABEL_NAME, LABEL_OWNER, LABEL_PLACE, remove
from hermes_backend_docker._places import PlaceName
from hermes_core.exceptions import HermesError
from hermes_core.sandbox import SandboxInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hermes_backend_docker._engine import Engine
    from hermes_backend_docker._places import Places
    from hermes_core.sandbox import SandboxState

__all__ = ["clean_up", "inspect"]

OVER = ("exited", "dead")
LEFT: SandboxState = "left behind"

_logger = logging.getLogger(__name__)


class Found(NamedTuple):
    """A sandbox that was found: by its container, or by its place if it has none."""

    info: SandboxInfo
    name: PlaceName
    container: str | None
    ours: bool
    """Whether it is of this machine and this user, so that its place tells whether its process lives."""


async def inspect(engine: Engine, places: Places | None, owner: str | None) -> list[SandboxInfo]:
    """Return the sandboxes of an owner, or of everyone."""
    return [found.info for found in await _find(engine, places, owner)]


async def clean_up(
    engine: Engine, places: Places | None, owner: str | None, *, everywhere: bool = True
) -> list[SandboxInfo]:
    """Remove what dead processes left; return what was removed.

    Args:
        engine: Where.
        places: Those of this machine and this user, if there are any.
        owner: Whose; None for everyone's.
        everywhere: Whether that of other machines and users is meant too.
    """
    removed = []
    for found in await _find(engine, places, owner):
        if found.info.state != LEFT or not (found.ours or everywhere):
            continue
        try:
            if found.ours and places is not None:
                with places.clearing(found.name) as dead:
                    if not dead:
                        continue
                    await _remove(engine, found.container)
            else:
                await _remove(engine, found.container)
        except (HermesError, OSError) as error:
            _logger.warning("sandbox %s is left: %s", found.info.name, error)
        else:
            removed.append(found.info)
    return removed


async def _remove(engine: Engine, container: str | None) -> None:
    if container is not None:
        await engine.work(partial(remove, title=container))


async def _find(engine: Engine, places: Places | None, owner: str | None) -> list[Found]:
    # Places first: a sandbox that is started meanwhile has a container and no place here, and is found nevertheless.
    known = [] if places is None else places.names()
    containers = await engine.call("containers", all=True, filters={"label": [LABEL_OWNER, LABEL_NAME]})
    found = [_judge(container, places) for container in containers if container["State"] != "removing"]
    seen = {one.name for one in found if one.ours}
    if places is not None:
        for name in known:
            if name not in seen:
                state: SandboxState = "starting" if places.is_held(name) else LEFT
                found.append(Found(SandboxInfo(name.name, name.owner, state), name, None, True))
    return [one for one in found if owner in (None, one.name.owner)]


def _judge(container: Mapping[str, Any], places: Places | None) -> Found:
    labels, state = container["Labels"], container["State"]
    name = PlaceName(labels[LABEL_OWNER], labels[LABEL_NAME])
    ours = places is not None and labels.get(LABEL_PLACE) == places.identity
    dead = not places.is_held(name) if ours and places is not None else state in OVER
    judged: SandboxState = LEFT if dead else "running" if state == "running" else "starting"
    age_s = max(0.0, time.time() - container["Created"])
    return Found(SandboxInfo(name.name, name.owner, judged, age_s), name, container["Id"], ours)

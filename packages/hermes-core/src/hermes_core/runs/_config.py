"""What `run.json` holds: all that decides what a run does, and no secret."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretBytes, SecretStr

from hermes_core.exceptions import RunDirectoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Component", "RunConfig", "component", "refuse_difference"]

_CREDENTIALS = re.compile(r"^[a-z][a-z0-9+.-]*://[^/@\s]*@")

# How a model is reached, not which one it is: these may change when a run is resumed.
_REACH = frozenset(("base_url", "timeout_s", "max_retries", "max_concurrency", "stream", "heartbeat_s", "debug_dir"))


class Component(BaseModel):
    """A plugin and its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As it is registered."""

    config: dict[str, JsonValue] = Field(default_factory=dict)
    """Its settings, without secrets."""


class RunConfig(BaseModel):
    """A run. What `--resume` compares is marked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    """Version of the run directory's format."""

    run_id: str
    """Unique; kept when the run is resumed."""

    environment: Component
    """Where tasks come from. Compared."""

    model: Component
    """Who works on them. Compared, but for the settings that say how to reach it."""

    backend: Component | None = None
    """Where sandboxes run; None without any."""

    split: Literal["train", "eval"] = "train"
    """The environment's split. Compared."""

    seed: int = 0
    """Fixes the order of tasks. Compared."""

    group_size: int = Field(default=1, ge=1)
    """Trajectories of each task. Compared."""

    tasks: int | None = Field(default=None, ge=0)
    """Most tasks to take; None takes what the environment has."""

    limit: int | None = Field(default=None, ge=0)
    """Most trajectories that the last start of the run was to make; None for all."""

    concurrency: int = Field(default=16, ge=1)
    """Most trajectories at work at once."""

    toolsets: tuple[str, ...] | None = None
    """The run's toolsets, which narrow the environment's; None keeps those. Compared."""

    limits: dict[str, JsonValue] = Field(default_factory=dict)
    """Agent limits that the run sets over the tasks' own. Compared."""

    sampling: dict[str, JsonValue] = Field(default_factory=dict)
    """Sampling parameters that the run sets over the tasks' own. Compared."""

    sandbox: dict[str, JsonValue] = Field(default_factory=dict)
    """Facts of the sandboxes: isolation level, network policy, …"""

    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of the distributions that take part."""

    started_at: float = 0.0
    """Unix time of the first start, in seconds."""


def component(name: str, config: BaseModel | None) -> Component:
    """Describe a plugin for the record; secret fields and credentials within URLs are left out."""
    return Component(name=name, config=_without_secrets(config) if config else {})


def refuse_difference(earlier: RunConfig, now: RunConfig) -> None:
    """Make sure that a resumed run is the same run.

    Raises:
        RunDirectoryError: It differs; the field is named.
    """
    was, is_now = _identity(earlier), _identity(now)
    for field in sorted(was.keys() | is_now.keys()):
        if was.get(field) != is_now.get(field):
            raise RunDirectoryError(
                f"the run cannot be resumed: {field} was {was.get(field)!r}, and is {is_now.get(field)!r} now",
                hint="resume it with the same settings, or choose another output folder",
            )


def _identity(config: RunConfig) -> dict[str, JsonValue]:
    data = config.model_dump(
        mode="json", include={"environment", "model", "split", "seed", "group_size", "toolsets", "limits", "sampling"}
    )
    flat = dict(_flatten(data, ""))
    return {field: value for field, value in flat.items() if field.removeprefix("model.config.") not in _REACH}


def _flatten(data: dict[str, JsonValue], prefix: str) -> Iterator[tuple[str, JsonValue]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _without_secrets(config: BaseModel) -> dict[str, JsonValue]:
    secret = {name for name in type(config).model_fields if _is_secret(getattr(config, name))}
    dumped: dict[str, JsonValue] = config.model_dump(mode="json", exclude=secret)
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            dumped[name] = _without_secrets(value)
    return {name: _without_credentials(value) for name, value in dumped.items()}


def _is_secret(value: object) -> bool:
    return isinstance(value, (SecretStr, SecretBytes))


def _without_credentials(value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_without_credentials(each) for each in value]
    if not isinstance(value, str) or not _CREDENTIALS.match(value):
        return value
    parts = urlsplit(value)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

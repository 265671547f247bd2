"""The options of `hermes run`: a YAML file, and what the command line says over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from hermes_core.config import configured
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["RunOptions", "key_values", "read_options"]


class RunOptions(BaseModel):
    """What one run is asked to do; the fields of `--config FILE.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    """Name of the environment."""

    model: str
    """Name of the model."""

    backend: str = "local"
    """Name of the sandbox backend."""

    tasks: int | None = Field(default=None, ge=1)
    """How many tasks to take from the split; all by default, which an endless environment refuses."""

    group_size: int = Field(default=1, ge=1)
    """Trajectories of each task."""

    concurrency: int = Field(default=16, ge=1)
    """Most trajectories that run at once."""

    split: Literal["train", "eval"] = "train"
    """Which tasks."""

    limit: int | None = Field(default=None, ge=1)
    """Most trajectories to finish now; the rest is left to `--resume`."""

    seed: int = 0
    """Decides the tasks and their order."""

    toolsets: tuple[str, ...] | None = None
    """Narrows the environment's toolsets."""

    out: str | None = None
    """The run's folder."""

    limits: dict[str, Any] = Field(default_factory=dict)
    """Agent limits (max_steps, max_tokens, tool_time_s, delay_s) over the tasks' own."""

    sampling: dict[str, Any] = Field(default_factory=dict)
    """Sampling (temperature, top_p, top_k, min_p, max_tokens, stop, seed) over the tasks' own."""

    deadline_s: float | None = Field(default=None, gt=0)
    """Seconds of wall time for one attempt at a trajectory, waiting included; beyond it, it is cancelled."""

    environment_config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the environment's configuration."""

    model_options: dict[str, Any] = Field(default_factory=dict, alias="model_config")
    """Fields of the model's configuration; `model_config` in the file."""

    backend_config: dict[str, Any] = Field(default_factory=dict)
    """Fields of the backend's configuration."""


def read_options(file: Path | None, given: Mapping[str, object]) -> RunOptions:
    """Read the file, and lay what was given over it.

    Args:
        file: `--config`, or None.
        given: Field name to value, None where the command line says nothing. Mappings are merged key by key.

    Raises:
        ConfigError: The file cannot be read, or a field is missing, unknown or malformed.
    """
    values = _read(file) if file else {}
    for name, value in given.items():
        if isinstance(value, dict):
            inside = values.get(name) or {}
            if not isinstance(inside, dict):
                raise ConfigError(f"{file}: {name} must be a mapping")
            values[name] = {**inside, **value}
        elif value is not None:
            values[name] = value
    for needed, how in (("environment", "hermes run ENV"), ("model", "--model NAME")):
        if values.get(needed) is None:
            raise ConfigError(f"which {needed}?", hint=f"give it as {how}, or in the file of --config")
    return configured(RunOptions, values, what=str(file) if file else "run")


def key_values(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Read the `key=value` pairs of a repeatable option.

    Raises:
        ConfigError: A pair has no `=`.
    """
    read: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"{option} {pair!r} is not of the form key=value")
        read[key.strip().replace("-", "_")] = value
    return read


def _read(file: Path) -> dict[str, object]:
    try:
        values = yaml.safe_load(file.read_text()) or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} must hold a mapping of options")
    return values

"""Settings that hold for every run: file < environment < what the caller passes.

The file is YAML: the one that `HERMES_CONFIG` names, else `~/.hermes/config.yaml` if it exists. Environment variables
are `HERMES_` and the field's name in capitals; lists and mappings are written as JSON.

Keys and addresses of services have variables of their own names, which `.env` files may set too (`first_variable`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, YamlConfigSettingsSource

from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_settings import PydanticBaseSettingsSource

__all__ = ["Profile", "Settings", "configured", "first_variable", "load_settings"]

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class Profile(BaseModel):
    """A named sandbox specification."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str | None = None
    """Image of its sandboxes, where the backend has any."""

    env: dict[str, str] = Field(default_factory=dict)
    """Variables of every command in its slots."""

    network: Literal["none", "host"] = "none"
    """Network policy of its slots; a lease that asks for `host` gets it."""

    limits: dict[str, int | str | None] = Field(default_factory=dict)
    """Limits of its slots (docs/reference/protocol.md), over those of the backend."""


class Settings(BaseSettings):
    """What holds for every run on this machine."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="HERMES_")

    slot_pool: str = "default"
    """Name of the slot pool."""

    batch_executor: str = "default"
    """Name of the batch executor."""

    max_in_flight: int = Field(default=1024, ge=1)
    """Most tool calls that run at once."""

    observers: tuple[str, ...] = ()
    """Names of observers that watch every run."""

    interceptors: tuple[str, ...] = ()
    """Names of interceptors, in the order in which they see a call."""

    disabled_toolsets: tuple[str, ...] = ()
    """Toolsets whose tools nobody gets."""

    profiles: dict[str, Profile] = Field(default_factory=dict)
    """Sandbox profiles by name."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The caller's values over the environment's over the file's."""
        path = settings_file()
        if path is None:
            return init_settings, env_settings
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, yaml_file=path)


def settings_file() -> Path | None:
    """The settings file in force, or None."""
    named = os.environ.get("HERMES_CONFIG")
    if named:
        return Path(named)
    usual = Path.home() / ".hermes" / "config.yaml"
    return usual if usual.is_file() else None


def load_settings(**overrides: Any) -> Settings:  # noqa: ANN401 - validated by the model
    """Read the settings.

    Raises:
        ConfigError: The file is missing or malformed, or a value is not valid.
    """
    path = settings_file()
    if path is not None and not path.is_file():
        raise ConfigError(f"settings file {path} does not exist", hint="it is named by HERMES_CONFIG")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigError(f"settings: {_first_fault(error)}", hint=_fields_hint(Settings)) from None
    except Exception as error:
        raise ConfigError(f"settings cannot be read: {error}", hint=f"look at {path}" if path else None) from error


def first_variable(names: Iterable[str]) -> str | None:
    """The value of the first variable that is set, without surrounding space; None if none is.

    A variable is taken from the process environment (set but empty, it counts as not set), else from `.env` in the
    working folder, else from `~/.hermes/.env`.

    Raises:
        ConfigError: A `.env` file cannot be read.
    """
    found: dict[str, str | None] = {}
    for path in (Path.home() / ".hermes" / ".env", Path(".env")):
        try:
            found |= dotenv_values(path, interpolate=False) if path.is_file() else {}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
    found |= os.environ
    return next((value for name in names if (value := (found.get(name) or "").strip())), None)


def configured(model: type[AnyModel], values: Mapping[str, object], *, what: str) -> AnyModel:
    """Validate configuration values that a user gave; strings are converted to the fields' types.

    Args:
        model: The configuration's pydantic model.
        values: Field name to value.
        what: What is being configured, for the error ("environment 'arithmetic'").

    Raises:
        ConfigError: A field is unknown or a value is not valid.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        fault = error
    # From the command line a list or a mapping arrives as text: read what did not fit once more, as YAML.
    misfits = {str(e["loc"][0]) for e in fault.errors() if e["loc"] and isinstance(values.get(str(e["loc"][0])), str)}
    read = {name: _from_yaml(values[name]) for name in misfits}
    try:
        return model.model_validate({**values, **read})
    except ValidationError as error:
        if any(isinstance(value, list | dict) for value in read.values()):
            fault = error  # of what is in it, and not that it is text
        raise ConfigError(f"{what}: {_first_fault(fault)}", hint=_fields_hint(model)) from None


def _from_yaml(text: object) -> object:
    try:
        return yaml.safe_load(str(text))
    except yaml.YAMLError:
        return text


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown field {field!r}"
    return f"{field}: {fault['msg']}" if field else str(fault["msg"])


def _fields_hint(model: type[BaseModel]) -> str:
    return f"fields: {', '.join(model.model_fields) or 'none'}"

"""From names and configuration values to the objects that a run needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hermes_core.config import configured
from hermes_core.exceptions import ConfigError, PluginLoadError
from hermes_core.toolsets import EVERYTHING, Toolset, select_tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hermes_core.environments import Environment
    from hermes_core.execution import Tool
    from hermes_core.models import Model, ToolCallFormat
    from hermes_core.plugins import PluginManager
    from hermes_core.sandbox import SandboxBackend

__all__ = ["Catalogue"]


class Catalogue:
    """Makes what plugins register.

    Args:
        plugins: Where names are looked up.
        toolsets: Further toolsets by name, for this catalogue alone.
        disabled_toolsets: Toolsets whose tools nobody gets.
    """

    def __init__(
        self, plugins: PluginManager, *, toolsets: Iterable[Toolset] = (), disabled_toolsets: Iterable[str] = ()
    ) -> None:
        self._plugins = plugins
        self._own = {toolset.name: toolset for toolset in toolsets}
        self._disabled = tuple(disabled_toolsets)

    def backend(self, name: str, values: Mapping[str, object]) -> SandboxBackend:
        """Make a backend.

        Raises:
            UnknownNameError: No plugin registers it.
            ConfigError: A value does not fit.
        """
        return cast("SandboxBackend", self._make("backend", name, values))

    def environment(self, name: str, values: Mapping[str, object]) -> Environment:
        """Make an environment; errors as for `backend`."""
        return cast("Environment", self._make("environment", name, values))

    def model(self, name: str, values: Mapping[str, object]) -> Model:
        """Make a model; errors as for `backend`.

        Args:
            name: A registered name; or one, a colon, and the setting that the model's class names as its `shorthand`.
            values: Field name to value.
        """
        name, shorthand = self._split(name)
        return cast("Model", self._make("model", name, {**shorthand, **self._free_of(shorthand, values)}))

    def tool_call_formats(self) -> dict[str, ToolCallFormat]:
        """Every installed text format of tool calls by name."""
        return {found.name: found.load() for found in self._plugins.registrations("tool-call format")}

    def load(self, kind: str, name: str) -> Any:  # noqa: ANN401 - what it is depends on the kind
        """Whatever else is registered, as it is."""
        return self._plugins.load(kind, name)

    def tool_names(self, toolsets: Iterable[str]) -> tuple[str, ...]:
        """The tools of some toolsets, without those of the disabled ones."""
        every_tool = [registration.name for registration in self._plugins.registrations("tool")]
        return select_tools(toolsets, self._disabled, self._toolset, every_tool)

    def tools(self, toolsets: Iterable[str]) -> dict[str, Tool]:
        """The tools of some toolsets by every name that a model may call them by.

        What everything (`full`) brings in and cannot be used here is left out, so that no model is offered it; a tool
        that a toolset names stays, and answers why it cannot be used.
        """
        wanted = tuple(toolsets)
        tools: dict[str, Tool] = {}
        for name in self.tool_names(wanted):
            tool: Tool = self._plugins.load("tool", name)
            if EVERYTHING.intersection(wanted) and tool.unavailable() is not None:
                continue
            for alias in (tool.definition.name, *getattr(tool, "aliases", ())):
                tools.setdefault(alias, tool)
        return tools

    def _toolset(self, name: str) -> Toolset:
        if name in self._own:
            return self._own[name]
        return cast("Toolset", self._plugins.load("toolset", name))

    def _split(self, name: str) -> tuple[str, dict[str, object]]:
        """Take `openai:gpt-x` apart into a registered name and a setting."""
        registered, colon, value = name.partition(":")
        if not colon:
            return name, {}
        field = getattr(self._plugins.load("model", registered), "shorthand", None)
        if field is None:
            raise ConfigError(f"model {registered!r} takes nothing after a colon", hint="give -M KEY=VALUE")
        if not value:
            raise ConfigError(f"model {name!r}: nothing follows the colon", hint=f"write {registered}:{field.upper()}")
        return registered, {field: value}

    @staticmethod
    def _free_of(shorthand: Mapping[str, object], values: Mapping[str, object]) -> Mapping[str, object]:
        for field, value in shorthand.items():
            if values.get(field, value) != value:
                raise ConfigError(
                    f"{field} is given twice: {value!r} and {values[field]!r}", hint="leave one of them out"
                )
        return values

    def _make(self, kind: str, name: str, values: Mapping[str, object]) -> object:
        made_from = self._plugins.load(kind, name)
        config = getattr(made_from, "Config", None)
        if config is None:
            raise PluginLoadError(f"{kind} {name!r} is not a class with a pydantic model called Config")
        return made_from(configured(config, values, what=f"{kind} {name!r}"))

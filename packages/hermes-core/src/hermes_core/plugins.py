"""Finds plugins, loads each on its own, and looks up what they register.

Nothing happens on import and nothing is global: `create_plugin_manager()` reads the installed distributions and returns
what it found, failures included.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from hermes_core import hookspecs
from hermes_core.exceptions import DuplicateNameError, HermesError, PluginLoadError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["KINDS", "Entry", "PluginInfo", "PluginManager", "PluginSource", "Registration", "create_plugin_manager"]

ENTRY_POINT_GROUP = "hermes"

KINDS: dict[str, str] = {
    "hermes_tools": "tool",
    "hermes_toolsets": "toolset",
    "hermes_sandbox_backends": "backend",
    "hermes_environments": "environment",
    "hermes_models": "model",
    "hermes_tool_call_formats": "tool-call format",
    "hermes_exporters": "exporter",
    "hermes_observers": "observer",
    "hermes_interceptors": "interceptor",
    "hermes_commands": "command",
    "hermes_slot_pools": "slot pool",
    "hermes_batch_executors": "batch executor",
}
"""Hook name to what one of its registrations is called."""

PUBLISHED: dict[tuple[str, str], str] = {
    ("model", "local"): "hermes-model-llamacpp",
    ("environment", "arithmetic"): "hermes-envs",
    ("backend", "docker"): "hermes-backend-docker",
    ("backend", "nomad"): "hermes-backend-nomad",
    ("backend", "nomad-singularity"): "hermes-backend-nomad",
    ("backend", "singularity"): "hermes-backend-singularity",
    ("backend", "modal"): "hermes-backend-modal",
    ("backend", "ssh"): "hermes-backend-ssh",
}
"""Names that a published distribution provides, so that an unknown name can say what to install."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a plugin registers, imported when it is first used.

    Attributes:
        name: The name that users write. A command's name may have two words: it then hangs below a group.
        target: `module:Object`.
        summary: One line for listings, without a full stop.
    """

    name: str
    target: str
    summary: str = ""

    def load(self) -> object:
        """Import the object.

        Raises:
            PluginLoadError: The module or the object is missing, or its import failed.
        """
        module_name, _, path = self.target.partition(":")
        try:
            found: object = importlib.import_module(module_name)
            for part in path.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise PluginLoadError(
                f"{self.name!r} cannot be loaded from {self.target}: {type(error).__name__}: {error}"
            ) from error
        return found


@dataclass(frozen=True, slots=True)
class Registration:
    """One name that one plugin registers.

    Attributes:
        kind: As in `KINDS`.
        name: Unique within its kind.
        summary: One line for listings.
        distribution: Who registers it.
        provided: What the hook handed over: an `Entry`, or the object itself.
    """

    kind: str
    name: str
    summary: str
    distribution: str
    provided: object

    def load(self) -> Any:  # noqa: ANN401 - what it is depends on the kind; the caller checks
        """The object, imported now if the plugin handed over an `Entry`."""
        return self.provided.load() if isinstance(self.provided, Entry) else self.provided


@dataclass(frozen=True, slots=True)
class PluginSource:
    """A plugin to load: where it comes from, and what loads it."""

    name: str
    distribution: str
    version: str
    target: str

    def load(self) -> object:
        """Import the plugin's module."""
        return importlib.import_module(self.target)


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin, loaded or failed.

    Attributes:
        name: The entry point's name.
        distribution: The distribution that it belongs to.
        version: The distribution's version.
        registrations: What it registers; empty when it failed.
        error: Why it failed, or None.
    """

    name: str
    distribution: str
    version: str
    registrations: tuple[Registration, ...] = ()
    error: HermesError | None = None


class PluginManager:
    """What the installed plugins register, by kind and name.

    Args:
        plugins: Loaded and failed plugins, in order of precedence for error messages.
    """

    def __init__(self, plugins: Iterable[PluginInfo]) -> None:
        self._found: dict[str, dict[str, Registration]] = {kind: {} for kind in KINDS.values()}
        self._contested: dict[tuple[str, str], DuplicateNameError] = {}
        self.plugins: tuple[PluginInfo, ...] = tuple(self._admit(plugin) for plugin in plugins)

    def _admit(self, plugin: PluginInfo) -> PluginInfo:
        """Take a plugin's registrations, or mark it as failed if one of its names is taken."""
        clash: DuplicateNameError | None = None
        for new in plugin.registrations:
            old = self._found[new.kind].get(new.name)
            if old is not None:
                clash = DuplicateNameError(new.kind, new.name, old.distribution, new.distribution)
                self._contested[new.kind, new.name] = clash
        if clash is not None:
            return PluginInfo(plugin.name, plugin.distribution, plugin.version, error=clash)
        for new in plugin.registrations:
            self._found[new.kind][new.name] = new
        return plugin

    def registrations(self, kind: str) -> list[Registration]:
        """Everything of one kind, sorted by name; contested names included."""
        return sorted(self._found[kind].values(), key=lambda registration: registration.name)

    def find(self, kind: str, name: str) -> Registration:
        """Look a name up.

        Raises:
            DuplicateNameError: Two plugins register it.
            UnknownNameError: None does; the hint says which distribution would, or which plugin failed.
        """
        if (kind, name) in self._contested:
            raise self._contested[kind, name]
        try:
            return self._found[kind][name]
        except KeyError:
            raise UnknownNameError(kind, name, self._found[kind], hint=self._hint(kind, name)) from None

    def load(self, kind: str, name: str) -> Any:  # noqa: ANN401 - what it is depends on the kind; the caller checks
        """Look a name up and import what it stands for.

        Raises:
            DuplicateNameError: Two plugins register it.
            UnknownNameError: None does.
            PluginLoadError: Its import failed.
        """
        return self.find(kind, name).load()

    def _hint(self, kind: str, name: str) -> str | None:
        provider = PUBLISHED.get((kind, name))
        failed = [plugin for plugin in self.plugins if plugin.error is not None]
        for plugin in failed:
            if plugin.distribution == provider or name in plugin.distribution:
                return f"plugin {plugin.distribution} failed to load: {plugin.error}"
        if provider is not None:
            return f"pip install {provider}"
        if failed:
            names = ", ".join(plugin.distribution for plugin in failed)
            return f"registered: {', '.join(sorted(self._found[kind])) or 'none'}; plugins that failed to load: {names}"
        return None


def create_plugin_manager(sources: Sequence[PluginSource] | None = None) -> PluginManager:
    """Load every installed plugin, each on its own.

    Args:
        sources: The plugins to load; by default all entry points of the group `hermes`.

    Returns:
        What was found. A plugin that fails (an import, an unknown hook, an exception in a hook) is listed with its
        error and touches no other.
    """
    return PluginManager(_load(source) for source in (installed_plugins() if sources is None else sources))


def installed_plugins() -> list[PluginSource]:
    """The entry points of the group `hermes`: core first, then by distribution."""
    sources = [
        PluginSource(
            name=point.name,
            distribution=point.dist.name if point.dist else "unknown distribution",
            version=point.dist.version if point.dist else "",
            target=point.value,
        )
        for point in metadata.entry_points(group=ENTRY_POINT_GROUP)
    ]
    return sorted(set(sources), key=lambda s: (s.distribution != "hermes-core", s.distribution, s.name))


def _load(source: PluginSource) -> PluginInfo:
    try:
        registrations = tuple(_collect(source))
    except PluginLoadError as error:
        return PluginInfo(source.name, source.distribution, source.version, error=error)
    return PluginInfo(source.name, source.distribution, source.version, registrations)


def _collect(source: PluginSource) -> Iterator[Registration]:
    """Call every hook of one plugin, in a pluggy manager of its own: one plugin's fault stays its own."""
    manager = pluggy.PluginManager("hermes")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(source.load(), name=source.name)
        manager.check_pending()
    except Exception as error:
        raise PluginLoadError(f"{type(error).__name__}: {error}") from error
    for hook, kind in KINDS.items():
        try:
            answers = getattr(manager.hook, hook)()
            provided = [one for answer in answers for one in answer]
        except Exception as error:
            raise PluginLoadError(f"{hook} raised {type(error).__name__}: {error}") from error
        for one in provided:
            yield Registration(kind, _name_of(one, hook), _summary_of(one), source.distribution, one)


def _name_of(provided: object, hook: str) -> str:
    name = getattr(provided, "name", None) or getattr(getattr(provided, "definition", None), "name", None)
    if not isinstance(name, str) or not name:
        raise PluginLoadError(f"{hook} returned {provided!r}, which has no name")
    return name


def _summary_of(provided: object) -> str:
    if isinstance(provided, Entry):
        return provided.summary
    text = getattr(getattr(provided, "definition", None), "description", None) or getattr(provided, "__doc__", None)
    return str(text or "").strip().partition("\n")[0].rstrip(".")

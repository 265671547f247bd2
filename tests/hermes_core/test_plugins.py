from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from hermes_core.exceptions import DuplicateNameError, PluginLoadError, UnknownNameError
from hermes_core.plugins import KINDS, PluginManager, PluginSource, create_plugin_manager, installed_plugins

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CORE = PluginSource("core", "hermes-core", "0.1.0", "hermes_core.default_plugins.plugin")

DICE = """
from hermes_core import Entry, hookimpl

@hookimpl
def hermes_tools():
    return [Entry("roll", "dice_roll:roll", "Roll a die")]
"""


def source(folder: Path, name: str, text: str) -> PluginSource:
    (folder / f"{name}.py").write_text(text)
    return PluginSource(name, f"hermes-tools-{name.replace('_', '-')}", "1.0", name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_core_registers_itself_through_the_same_door() -> None:
    assert "hermes_core.default_plugins.plugin" in {plugin.target for plugin in installed_plugins()}
    assert create_plugin_manager([CORE]).load("tool", "terminal").definition.name == "terminal"


def test_every_entry_of_core_can_be_loaded_and_has_its_name() -> None:
    manager = create_plugin_manager([CORE])
    for kind in KINDS.values():
        for registration in manager.registrations(kind):
            loaded = registration.load()
            if kind in ("tool",):
                assert loaded.definition.name == registration.name
            elif kind in ("toolset", "backend", "model", "environment", "tool-call format"):
                assert loaded.name == registration.name


def test_every_hook_is_documented_and_has_a_kind() -> None:
    from hermes_core import hookspecs

    hooks = {name for name in hookspecs.__all__ if name.startswith("hermes_")}
    assert hooks == set(KINDS)
    assert all(getattr(hookspecs, name).__doc__ for name in hooks)


def test_a_plugin_is_found_and_its_target_not_imported(folder: Path) -> None:
    manager = create_plugin_manager([CORE, source(folder, "dice", DICE)])
    assert manager.find("tool", "roll").distribution == "hermes-tools-dice"
    assert "dice_roll" not in sys.modules


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('broken')", "RuntimeError: broken"),
        ("import no_such_module_anywhere", "No module named"),
        (DICE.replace("hermes_tools", "hermes_toolz"), "unknown hook 'hermes_toolz'"),
        (DICE.replace("return [", "1 / 0; return ["), "hermes_tools raised ZeroDivisionError"),
        (DICE.replace('Entry("roll", "dice_roll:roll", "Roll a die")', "object()"), "has no name"),
        ("syntax error here", "SyntaxError"),
    ],
)
def test_a_failed_plugin_says_why_and_harms_no_other(folder: Path, text: str, said: str) -> None:
    manager = create_plugin_manager([CORE, source(folder, "broken_one", text), source(folder, "dice", DICE)])
    [failed] = [plugin for plugin in manager.plugins if plugin.error]
    assert failed.distribution == "hermes-tools-broken-one"
    assert said in str(failed.error)
    assert manager.find("tool", "roll")
    assert manager.find("tool", "terminal")


def test_asking_for_a_name_names_the_plugins_that_failed(folder: Path) -> None:
    manager = create_plugin_manager([CORE, source(folder, "broken_two", "1 / 0")])
    with pytest.raises(UnknownNameError) as caught:
        manager.find("tool", "whatever")
    assert "hermes-tools-broken-two" in str(caught.value.hint)


def test_a_duplicate_name_names_both_distributions(folder: Path) -> None:
    manager = create_plugin_manager([CORE, source(folder, "dice", DICE), source(folder, "dice_too", DICE)])
    with pytest.raises(DuplicateNameError, match=r"hermes-tools-dice and hermes-tools-dice-too"):
        manager.find("tool", "roll")
    assert manager.find("tool", "terminal")
    assert [plugin.distribution for plugin in manager.plugins if plugin.error] == ["hermes-tools-dice-too"]


def test_a_missing_target_is_an_error_of_the_plugin(folder: Path) -> None:
    manager = create_plugin_manager([CORE, source(folder, "dice", DICE)])
    with pytest.raises(PluginLoadError, match="'roll' cannot be loaded from dice_roll:roll"):
        manager.load("tool", "roll")


def test_an_unknown_name_says_what_to_install_or_what_there_is() -> None:
    manager = PluginManager([])
    with pytest.raises(UnknownNameError) as caught:
        manager.find("model", "local")
    assert caught.value.hint == "pip install hermes-model-llamacpp"
    with pytest.raises(UnknownNameError) as caught:
        create_plugin_manager([CORE]).find("backend", "nowhere")
    assert "registered: local" in str(caught.value.hint)

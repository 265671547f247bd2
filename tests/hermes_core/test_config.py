from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ConfigDict

from hermes_core.config import configured, load_settings
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Example(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = 1
    names: tuple[str, ...] = ()
    text: str = ""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HERMES_CONFIG", "HERMES_MAX_IN_FLIGHT", "HERMES_SLOT_POOL"):
        monkeypatch.delenv(name, raising=False)


def test_file_below_environment_below_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("max_in_flight: 5\nslot_pool: from-file\nbatch_executor: from-file\n")
    monkeypatch.setenv("HERMES_CONFIG", str(file))
    monkeypatch.setenv("HERMES_SLOT_POOL", "from-environment")
    monkeypatch.setenv("HERMES_MAX_IN_FLIGHT", "6")
    settings = load_settings(max_in_flight=7)
    assert (settings.max_in_flight, settings.slot_pool, settings.batch_executor) == (7, "from-environment", "from-file")


def test_the_usual_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".hermes").mkdir()
    (tmp_path / ".hermes" / "config.yaml").write_text("profiles: {big: {image: x.sif}}\n")
    assert load_settings().profiles["big"].image == "x.sif"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slotpool: x\n", "unknown field 'slotpool'"),
        ("max_in_flight: no\n", "max_in_flight"),
        (": : :", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    monkeypatch.setenv("HERMES_CONFIG", str(file))
    with pytest.raises(ConfigError, match=said):
        load_settings()


def test_a_missing_file_that_was_named_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_CONFIG", "/no/such/file.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings()


def test_text_from_the_command_line_becomes_the_fields_type() -> None:
    example = configured(Example, {"count": "3", "names": "[a, b]", "text": "[not a list]"}, what="example")
    assert example == Example(count=3, names=("a", "b"), text="[not a list]")


def test_an_unknown_field_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="example: unknown field 'cuont'") as caught:
        configured(Example, {"cuont": "3"}, what="example")
    assert caught.value.hint == "fields: count, names, text"


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="example: count: "):
        configured(Example, {"count": "many"}, what="example")


def test_of_a_list_it_is_named_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"example: names\.1: .* string"):
        configured(Example, {"names": "[a, 1]"}, what="example")

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, SecretStr

from hermes_core.exceptions import RunDirectoryError
from hermes_core.runs import Component, RunDirectory, component

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hermes_core.runs import RunConfig


def test_a_folder_with_anything_in_it_is_not_written_to(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, run_config()).close()
    with pytest.raises(RunDirectoryError, match="is not empty") as caught:
        RunDirectory.open(tmp_path, run_config())
    assert "--resume" in str(caught.value.hint)


def test_resuming_what_never_began_begins_it(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    with RunDirectory.open(tmp_path / "new", run_config(), resume=True) as directory:
        assert directory.config == run_config()
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "run.json.new").write_text('{"half')
    RunDirectory.open(tmp_path / "killed", run_config(), resume=True).close()


def test_a_folder_of_something_else_is_not_resumed(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirectoryError, match="holds no run"):
        RunDirectory.open(tmp_path, run_config(), resume=True)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("seed", {"seed": 1}),
        ("split", {"split": "eval"}),
        ("group_size", {"group_size": 3}),
        ("toolsets", {"toolsets": ("sums",)}),
        ("environment.name", {"environment": Component(name="other", config={"count": None})}),
        ("environment.config.count", {"environment": Component(name="sums", config={"count": 5})}),
        ("model.name", {"model": Component(name="openai")}),
        ("model.config.model", {"model": Component(name="oracle", config={"model": "b"})}),
        ("sampling.temperature", {"sampling": {"temperature": 0.1}}),
    ],
)
def test_another_run_is_not_resumed(
    run_config: Callable[..., RunConfig], tmp_path: Path, field: str, change: dict[str, object]
) -> None:
    RunDirectory.open(tmp_path, run_config()).close()
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunDirectoryError, match=field.replace(".", r"\.")):
        RunDirectory.open(tmp_path, run_config(**change), resume=True)
    assert (tmp_path / "run.json").read_bytes() == before


def test_what_may_change_may_change(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, run_config(run_id="first", started_at=1.0)).close()
    changed = run_config(
        run_id="second",
        started_at=2.0,
        tasks=9,
        concurrency=3,
        backend=Component(name="docker"),
        model=Component(name="oracle", config={"base_url": "http://b"}),
    )
    with RunDirectory.open(tmp_path, changed, resume=True) as directory:
        assert (directory.config.run_id, directory.config.started_at) == ("first", 1.0)
        assert directory.config.tasks == 9
    assert json.loads((tmp_path / "run.json").read_text())["tasks"] == 9


def test_a_damaged_description_is_said_so(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunDirectoryError, match="another version or damaged"):
        RunDirectory.open(tmp_path, run_config(), resume=True)


def test_a_folder_that_cannot_be_made(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunDirectoryError, match="cannot write"):
        RunDirectory.open(tmp_path / "file", run_config())
    with pytest.raises(RunDirectoryError, match="cannot write"):
        RunDirectory.open(tmp_path / "file" / "out", run_config())


def test_a_refused_folder_is_not_held(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, run_config()).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(RunDirectoryError):
            RunDirectory.open(tmp_path, run_config())
    assert len(os.listdir("/proc/self/fd")) == before


class Inner(BaseModel):
    token: SecretStr = SecretStr("hidden-b")
    size: int = 1


class Outer(BaseModel):
    api_key: SecretStr | None = SecretStr("hidden-a")
    base_url: str = "https://user:hidden-c@host:8/v1"
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = (Inner(),)


def test_secrets_are_left_out() -> None:
    described = component("m", Outer())
    assert "hidden" not in described.model_dump_json()
    assert described.config["base_url"] == "https://host:8/v1"
    assert described.config["inner"] == {"size": 1}
    assert component("m", None) == Component(name="m")

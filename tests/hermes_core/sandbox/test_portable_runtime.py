from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from hermes_core.cli._main import hermes
from hermes_core.exceptions import BackendUnavailableError
from hermes_core.sandbox import fixed_runtime
from hermes_core.sandbox.portable import (
    RUNTIME_INSIDE,
    archive_runtime,
    build_runtime,
    portable_runtime,
    prune_runtimes,
    runtime_of,
    runtimes_folder,
)

BUILD = """
import pathlib, sys
from hermes_core.sandbox.portable import build_runtime
build_runtime(pathlib.Path(sys.argv[1]))
"""

HOLD = """
import pathlib, sys
from hermes_core.sandbox.portable._use import hold
print(hold(pathlib.Path(sys.argv[1])), flush=True)
input()
"""


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtimes")


def run(folder: Path, *arguments: str) -> str:
    """Run the folder's interpreter, with nothing else to help it."""
    command = [*runtime_of(folder, str(folder)).arguments[:-1], *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout


def test_it_is_built_once(parent: Path) -> None:
    folder = build_runtime(parent)
    before = folder.stat()
    assert build_runtime(parent) == folder
    assert (folder.stat().st_ino, folder.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path for path in parent.iterdir() if not path.name.startswith(".")] == [folder]


def test_builders_do_not_disturb_each_other(tmp_path: Path) -> None:
    leftover = tmp_path / ".unfinished-by-somebody-who-was-killed"
    leftover.mkdir()
    command = [sys.executable, "-c", BUILD, str(tmp_path)]
    with ThreadPoolExecutor() as threads:
        done = list(threads.map(lambda _: subprocess.run(command, check=False).returncode, range(3)))
    assert done == [0, 0, 0]
    assert sorted(path.name.startswith(".") for path in tmp_path.iterdir()) == [False, True]  # and the lock
    assert not leftover.exists()


def test_everybody_can_read_it(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        folder = build_runtime(tmp_path)
    finally:
        os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        wanted = 0o005 if path.is_dir() or path.parent.name == "bin" else 0o004
        assert path.stat().st_mode & 0o007 == wanted or path.name == "loader", path


def test_its_interpreter_uses_nothing_of_this_machine(parent: Path) -> None:
    folder = build_runtime(parent)
    said = json.loads(run(folder, "-c", "import json, sys; print(json.dumps([sys.prefix, sys.path, sys.version]))"))
    assert said[0] == str(folder)
    assert all(path.startswith(str(folder)) for path in said[1])
    assert said[2] == sys.version
    libraries = run(folder, "-c", "import asyncio, ctypes, hashlib, pty, ssl; print(open('/proc/self/maps').read())")
    mapped = {line.split()[-1] for line in libraries.splitlines() if "/" in line}
    assert all(path.startswith(str(folder)) for path in mapped if ".so" in path), mapped


def test_its_daemon_answers(parent: Path) -> None:
    folder = build_runtime(parent)
    assert "serve" in run(folder, str(folder / "hermes_sandboxd"), "--help")


def test_its_names_are_the_same_everywhere(parent: Path) -> None:
    folder = build_runtime(parent)
    assert runtime_of(folder, "/inside").arguments == fixed_runtime("/inside").arguments
    assert fixed_runtime("/inside").files == ()
    names = [word.removeprefix("/inside/") for word in fixed_runtime("/inside").arguments if word.startswith("/inside")]
    assert names == ["lib/loader", "lib", "bin/python", "hermes_sandboxd"]


def test_its_archive_is_always_the_same_and_works(parent: Path, tmp_path: Path) -> None:
    folder = build_runtime(parent)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    copy.touch()
    first, second = tmp_path / "first.tar.gz", tmp_path / "second.tar.gz"
    digest = archive_runtime(folder, first)
    assert digest == archive_runtime(copy, second) == hashlib.sha256(second.read_bytes()).hexdigest()
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "first.tar.gz", "second.tar.gz"]
    with tarfile.open(first) as archive:
        members = archive.getmembers()
        archive.extractall(tmp_path / "unpacked", filter="fully_trusted")
    assert {member.name.split("/")[0] for member in members} == {"bin", "hermes_sandboxd", "lib", "runtime.json"}
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
    # Not everything that unpacks archives makes links of them.
    assert all(member.isdir() or member.isfile() for member in members)
    unpacked = tmp_path / "unpacked"
    assert "serve" in run(unpacked, str(unpacked / "hermes_sandboxd"), "--help")


def test_what_nobody_uses_is_pruned(monkeypatch: pytest.MonkeyPatch, parent: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path))
    built = build_runtime(parent)
    for name in ("old", "used", "young"):
        shutil.copytree(built, tmp_path / "runtimes" / name)
    for name in ("old", "used"):
        os.utime(tmp_path / "runtimes" / name / "runtime.json", (0, 0))
    (tmp_path / "runtimes" / "somebody's").mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "runtimes" / "used")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"True\n"
        os.utime(tmp_path / "runtimes" / "used" / "runtime.json", (0, 0))
        told = prune("--dry-run")
        assert told[0].startswith(f"would remove {there(tmp_path, 'old')} (")
        assert told[1].startswith(f"kept {there(tmp_path, 'used')} (")
        assert told[1].endswith(": in use")
        assert [line.partition(" (")[0] for line in told[2:]] == [f"kept {there(tmp_path, 'young')}"]
        assert prune()[0].startswith(f"removed {there(tmp_path, 'old')} (")
        told = json.loads("\n".join(prune("--older-than", "0", "--json")))
        assert [row["folder"] for row in told["removed"]] == [there(tmp_path, "young")]
        assert [(row["folder"], row["in_use"]) for row in told["kept"]] == [(there(tmp_path, "used"), True)]
        user.communicate(b"\n")
    assert prune()[0].startswith(f"removed {there(tmp_path, 'used')} (")
    assert prune() == ["nothing to remove"]
    assert sorted(os.listdir(tmp_path / "runtimes")) == [".lock", "somebody's"]


def test_what_this_process_uses_is_not_pruned(tmp_path: Path) -> None:
    folder = build_runtime(tmp_path)
    [found] = prune_runtimes(0, parent=tmp_path)
    assert (found.folder, found.in_use, found.useless) == (folder, True, False)
    assert folder.is_dir()
    assert prune_runtimes(0, parent=tmp_path / "missing") == []


def prune(*options: str) -> list[str]:
    done = CliRunner().invoke(hermes, ["sandbox", "runtime", "prune", *options])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def there(folder: Path, name: str) -> str:
    return str(folder / "runtimes" / name)


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("HERMES_CACHE", raising=False)
    assert runtimes_folder() == Path("/somewhere/hermes/runtimes")
    monkeypatch.setenv("HERMES_CACHE", str(parent.parent))
    assert runtimes_folder() == parent.parent / "runtimes"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailableError, match="cannot be built") as raised:
        build_runtime(tmp_path / "file" / "runtimes")
    assert "HERMES_CACHE" in str(raised.value.hint)


def test_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path))
    plain = CliRunner().invoke(hermes, ["sandbox", "runtime", "build"])
    told = json.loads(CliRunner().invoke(hermes, ["sandbox", "runtime", "build", "--json"]).output)
    assert plain.output.strip() == told["folder"]
    assert Path(told["folder"]).parent == tmp_path / "runtimes"
    assert tuple(told["arguments"]) == portable_runtime().arguments
    assert told["arguments"][-1] == f"{RUNTIME_INSIDE}/hermes_sandboxd"
    assert "archive" not in told


def test_the_command_line_writes_an_archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HERMES_CACHE", str(tmp_path))
    archive = tmp_path / "runtime.tar.gz"
    command = ["sandbox", "runtime", "build", "--archive"]
    told = json.loads(CliRunner().invoke(hermes, [*command, str(archive), "--json"]).output)
    assert told["archive"] == str(archive)
    assert told["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    nowhere = CliRunner().invoke(hermes, [*command, str(tmp_path / "missing" / "runtime.tar.gz")])
    assert nowhere.exit_code == 2
    assert "cannot be written" in nowhere.output

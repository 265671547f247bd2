"""Where sockets and state are kept, and that nobody else has a say there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.sandbox import check_private_folder, check_socket_path, default_state_folder

DEEP = "/tmp/" + "deep/" * 8


@pytest.mark.parametrize(
    ("user", "runtime", "temporary", "expected"),
    [
        (0, "/tmp", "/tmp", "/run/box"),
        (1000, "/tmp", "/var/tmp", "/tmp/box"),
        (1000, "/does/not/exist", "/var/tmp", "/var/tmp/box-1000"),
        (1000, DEEP, "/var/tmp", "/var/tmp/box-1000"),
        (1000, "", DEEP, "/tmp/box-1000"),
    ],
)
def test_the_default_leaves_room_for_sockets(
    monkeypatch: pytest.MonkeyPatch, user: int, runtime: str, temporary: str, expected: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(tempfile, "tempdir", temporary)
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert default_state_folder("box") == Path(expected)


def test_a_folder_of_ones_own_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_private_folder(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_private_folder(tmp_path / "none")


@pytest.mark.parametrize("what", ["group", "others", "link", "file"])
def test_what_others_could_meddle_with_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "folder"
    if what == "link":
        folder.symlink_to(tmp_path)
    elif what == "file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o770 if what == "group" else 0o707)
    with pytest.raises(BackendUnavailableError, match="only this user can write") as raised:
        check_private_folder(folder, what="cache", setting="cache_dir")
    assert raised.value.message.startswith(f"the cache {folder} is not")
    assert raised.value.hint == "choose another: -B cache_dir=FOLDER"


def test_a_path_may_be_as_long_as_sockets_allow() -> None:
    folder = Path("/" + "x" * 99)
    check_socket_path(folder / "socket", folder.parent)
    with pytest.raises(ConfigError, match="too long a path"):
        check_socket_path(folder / "sockets", folder)

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from hermes_backend_docker._context import digest_of, pack, recipe_of
from hermes_core.exceptions import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "task"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / ".dockerignore").write_text("# what nobody needs\n*.log\n\nnotes\n")
    (folder / "sub" / "file").write_text("content")
    (folder / "sub" / "link").symlink_to("file")
    (folder / "x.log").write_text("log")
    (folder / "notes").write_text("notes")
    return folder


def test_the_contents_are_packed_without_what_is_ignored(folder: Path) -> None:
    with pack(folder) as packed, tarfile.open(fileobj=packed) as archive:
        assert set(archive.getnames()) == {"Dockerfile", ".dockerignore", "sub", "sub/file", "sub/link"}
        assert {(entry.uid, entry.mtime) for entry in archive} == {(0, 0)}


def test_equal_folders_are_packed_alike(folder: Path) -> None:
    with pack(folder) as one:
        first = one.read()
    for path in (folder / "sub" / "file", folder / "Dockerfile"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    (folder / "x.log").write_text("other log")
    with pack(folder) as two:
        assert two.read() == first


def test_the_digest_tells_every_change_that_an_image_would_show(folder: Path) -> None:
    digests = [digest_of(folder)]
    os.utime(folder / "sub" / "file", (1, 1))
    (folder / "notes").write_text("other notes")
    assert digest_of(folder) == digests[0]
    digests.append(digest_of(folder, "base"))
    (folder / "sub" / "file").write_text("other content")
    digests.append(digest_of(folder))
    (folder / "sub" / "file").chmod(0o755)
    digests.append(digest_of(folder))
    (folder / "sub" / "file").rename(folder / "sub" / "other")
    digests.append(digest_of(folder))
    assert len(set(digests)) == len(digests)


def test_a_dockerfile_is_named_by_its_folder_or_by_itself(folder: Path, tmp_path: Path) -> None:
    assert recipe_of(folder) == recipe_of(folder / "Dockerfile") == folder
    with pytest.raises(ConfigError, match="no Dockerfile"):
        recipe_of(tmp_path)

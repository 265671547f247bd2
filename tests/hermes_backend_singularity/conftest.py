"""These tests need Apptainer and an ordinary user; as root, `test_as_ordinary_user.py` runs the others as that user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.hermes_backend_singularity.engine import IMAGE, ROOT_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = (
    [path.name for path in Path(__file__).parent.glob("test_*.py") if path.name != "test_as_ordinary_user.py"]
    if os.geteuid() == 0
    else ["test_as_ordinary_user.py"]
)


@pytest.fixture
def image() -> str:
    """A `.sif` file with a small Debian and Python."""
    return str(IMAGE)


@pytest.fixture
def root_folder() -> str:
    """A folder with the same."""
    return str(ROOT_FOLDER)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A scratch folder of the test's own; unpacked images in it are removed with it."""
    from hermes_sandboxd import remove_tree

    folder = tmp_path / "scratch"
    folder.mkdir(mode=0o700)
    yield folder
    remove_tree(str(folder))

"""As root: runs the other tests of this folder as an ordinary user, each file by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.hermes_backend_singularity.ordinary_user import WORLD, run

pytestmark = pytest.mark.apptainer

HERE = Path(__file__).parent
FILES = sorted(path.name for path in HERE.glob("test_*.py") if path.name != Path(__file__).name)


@pytest.mark.parametrize("name", FILES)
def test_as_an_ordinary_user(name: str) -> None:
    folder = WORLD / "checkout" / HERE.relative_to(HERE.parents[1])
    options = (
        "-rs",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(WORLD / "checkout"),
        "-c",
        f"{WORLD}/checkout/pyproject.toml",
    )
    done = run(["-m", "pytest", *options, str(folder / name)])
    print(done.stdout)  # noqa: T201 - pytest shows it if the test fails
    assert done.returncode == 0, f"{done.stdout[-20000:]}\n{done.stderr[-5000:]}"

"""An image of a tag is built when the engine has none."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.docker_images import unused_tag

from hermes_backend_docker import build_missing
from hermes_backend_docker._building import BuildFailedError
from hermes_core.exceptions import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

RECIPE = 'FROM {base}\nLABEL {label}\nCOPY note.txt /note.txt\nRUN ["cat", "/note.txt"]\n'
BUILDER = """
import sys, anyio
from pathlib import Path
from hermes_backend_docker import build_missing
print(anyio.run(lambda: build_missing(sys.argv[1], dockerfile=Path(sys.argv[2]))))
"""


@pytest.fixture
def tag(client: Any, tmp_path: Path) -> Iterator[str]:
    """A tag that the engine does not have; images of the test are removed afterwards."""
    with unused_tag(client, f"hermes.test={tmp_path}") as name:
        yield name


@pytest.fixture
def folder(docker_base: str, tmp_path: Path) -> Path:
    folder = tmp_path / "box"
    folder.mkdir()
    (folder / "note.txt").write_text(f"a note of {tmp_path}\n")
    (folder / "Dockerfile").write_text(RECIPE.format(base=docker_base, label=f"hermes.test={tmp_path}"))
    return folder


async def test_the_reference_image_is_built_under_the_tag(
    reference: str, docker_base: str, client: Any, tag: str
) -> None:
    assert await build_missing(tag, base_image=docker_base) == reference
    assert client.inspect_image(tag)["Id"] == reference


async def test_an_image_that_is_there_is_left_alone(
    docker_base: str, client: Any, tag: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client.tag(docker_base, *tag.split(":"))
    assert await build_missing(tag, dockerfile=folder) == client.inspect_image(docker_base)["Id"]
    assert "built" not in caplog.text


async def test_a_dockerfile_is_built_from_its_folder_or_from_another(client: Any, tag: str, folder: Path) -> None:
    own = await build_missing(tag, dockerfile=folder / "Dockerfile")
    assert client.inspect_image(tag)["Id"] == own
    client.remove_image(tag)
    assert await build_missing(tag, context=folder) == own, "of the same contents there is one image"

    elsewhere = folder.parent / "another.Dockerfile"
    (folder / "Dockerfile").rename(elsewhere)
    with elsewhere.open("a") as recipe:
        recipe.write("LABEL changed=yes\n")
    (folder / ".dockerignore").write_text("*ockerfile*\n")
    client.remove_image(tag)
    other = await build_missing(tag, dockerfile=elsewhere, context=folder)
    assert client.inspect_image(other)["Config"]["Labels"]["changed"] == "yes"
    assert other != own


def test_processes_may_build_the_same_tag_at_once(client: Any, tag: str, folder: Path) -> None:
    command = [sys.executable, "-c", BUILDER, tag, str(folder)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = {builder.communicate()[0].strip() for builder in builders}
    assert [builder.returncode for builder in builders] == [0, 0, 0]
    assert client.inspect_image(tag)["Id"] in ids


async def test_what_takes_a_while_is_said(tag: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    await build_missing(tag, dockerfile=folder)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said[0] == f"the Docker engine has no image {tag}: it is built"


async def test_what_cannot_be_built_is_told(docker_base: str, tag: str, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Dockerfile .*/nothing"):
        await build_missing(tag, dockerfile=folder / "nothing")
    with pytest.raises(ConfigError, match=r"no folder .*/nothing"):
        await build_missing(tag, context=folder / "nothing")
    with pytest.raises(ConfigError, match="base_image"):
        await build_missing(tag, dockerfile=folder, base_image=docker_base)
    with pytest.raises(BackendUnavailableError, match="no image localhost:1/x:y, and it cannot be pulled"):
        await build_missing(tag, base_image="localhost:1/x:y")
    with (folder / "Dockerfile").open("a") as recipe:
        recipe.write("RUN exit 3\n")
    with pytest.raises(BuildFailedError, match=r"box cannot be built: .*non-zero code: 3") as raised:
        await build_missing(tag, dockerfile=folder)
    log = anyio.Path(str(raised.value.hint).removeprefix("its log: "))
    assert "RUN exit 3" in await log.read_text()
    await log.unlink()

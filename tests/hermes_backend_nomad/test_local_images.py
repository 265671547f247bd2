"""Images of this machine are built and converted when they are missing, and once."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from tests.docker_images import engine_client, unused_tag
from tests.hermes_backend_singularity.ordinary_user import USER

from hermes_backend_nomad import NomadConfig, NomadSingularityConfig
from hermes_backend_nomad._local_images import local_image, local_sif
from hermes_core.exceptions import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

RECIPE = "FROM {base} AS base\nFROM scratch\nLABEL {label}\nCOPY --from=base /bin/busybox /bin/busybox\n"
CONVERTER = """
import logging, sys, anyio
from hermes_backend_nomad import NomadSingularityConfig
from hermes_backend_nomad._local_images import local_sif
logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format="%(message)s")
print(anyio.run(local_sif, NomadSingularityConfig(image=sys.argv[1])))
"""
PATIENCE_S = 60.0


@pytest.fixture
def client(docker_base: str) -> Iterator[Any]:
    """The SDK's client, to look at the engine and to meddle with it."""
    del docker_base
    with engine_client() as client:
        yield client


@pytest.fixture
def recipe(docker_base: str, tmp_path: Path) -> Path:
    """A Dockerfile of a small image."""
    path = tmp_path / "Dockerfile"
    path.write_text(RECIPE.format(base=docker_base, label=f"hermes.test={tmp_path}"))
    return path


@pytest.fixture
def tag(client: Any, tmp_path: Path) -> Iterator[str]:
    """A tag that the engine does not have; images of the test are removed afterwards."""
    with unused_tag(client, f"hermes.test={tmp_path}") as name:
        yield name


@pytest.fixture
def built(client: Any, tag: str, recipe: Path) -> str:
    """A tag that the engine has."""
    for _ in client.build(path=str(recipe.parent), tag=tag, rm=True):
        pass
    return tag


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that everybody may look into."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HERMES_CACHE", str(folder))
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(0o755)
    return folder / "nomad-images"


def made(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def modified(path: Path) -> int:
    return path.stat().st_mtime_ns


@pytest.mark.docker
async def test_a_missing_image_of_this_machine_is_built(
    client: Any, tag: str, recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await local_image(NomadConfig(image=tag, dockerfile_path=recipe))
    assert client.inspect_image(tag)["Config"]["Labels"]["hermes.test"] == str(recipe.parent)
    assert f"the Docker engine has no image {tag}: it is built" in caplog.text
    caplog.clear()
    await local_image(NomadConfig(image=tag, docker_build_context=recipe.parent))
    assert not caplog.text


@pytest.mark.docker
async def test_other_images_are_the_nodes_own_business(client: Any, tag: str) -> None:
    await local_image(NomadConfig(image="registry.example/tasks:7"))
    await local_image(NomadConfig(image=tag, auto_build_local_image=False))
    assert not client.images(name=tag)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image": "tasks:7", "dockerfile_path": "Dockerfile"}, "dockerfile_path does nothing here: the tag of image"),
        ({"auto_build_local_image": False, "docker_build_context": "."}, "docker_build_context does nothing here"),
    ],
)
async def test_a_dockerfile_that_is_never_built_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await local_image(NomadConfig.model_validate(settings))


async def test_without_the_docker_backend_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hermes_backend_docker", None)  # as if it was not installed
    with pytest.raises(BackendUnavailableError, match="is not installed") as raised:
        await local_image(NomadConfig())
    assert "pip install 'hermes-backend-nomad[docker]'" in str(raised.value.hint)


async def test_without_an_engine_it_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(BackendUnavailableError, match="hermes-sandbox:local cannot be had: no Docker engine") as raised:
        await local_image(NomadConfig())
    assert str(raised.value.hint).endswith("auto_build_local_image=false")


@pytest.mark.docker
async def test_an_image_that_cannot_be_built_stops_everything(tag: str, recipe: Path) -> None:
    text = await anyio.Path(recipe).read_text()
    await anyio.Path(recipe).write_text(text + 'RUN ["/bin/busybox", "false"]\n')
    with pytest.raises(BackendUnavailableError, match="cannot be built") as raised:
        await local_image(NomadConfig(image=tag, dockerfile_path=recipe))
    assert "its log: " in str(raised.value.hint)
    await anyio.Path(str(raised.value.hint).partition("; ")[0].removeprefix("its log: ")).unlink()


async def test_images_of_the_nodes_are_taken_as_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sif").touch()
    for image, path in (
        ("/images/x.sif", "/images/x.sif"),
        ("/root-fs", "/root-fs"),
        ("x.sif", f"{tmp_path}/x.sif"),
    ):
        assert await local_sif(NomadSingularityConfig(image=image)) == path
    for nothing in (None, "missing.sif", "docker://debian:12", "debian:12"):
        with pytest.raises(ConfigError) as raised:
            await local_sif(NomadSingularityConfig(image=nothing))
        assert "-B image=" in str(raised.value.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user one runs containers oneself")
async def test_an_image_where_the_user_cannot_look_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await anyio.Path(tmp_path).chmod(0o700)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.sif").touch()
    with pytest.raises(BackendUnavailableError, match="user nobody, who runs the containers, cannot read image"):
        await local_sif(NomadSingularityConfig(image="x.sif", user="nobody"))
    assert await local_sif(NomadSingularityConfig(image="x.sif", user="no-user-here")) == f"{tmp_path}/x.sif"


@pytest.mark.docker
@pytest.mark.apptainer
async def test_an_image_is_converted_once_and_the_ordinary_user_reads_it(
    built: str, cache: Path, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    user = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    config = NomadSingularityConfig(image=built, user=user)
    umask = os.umask(0o077)
    try:
        path = Path(await local_sif(config))
    finally:
        os.umask(umask)
    assert path == cache / f"{client.inspect_image(built)['Id'].removeprefix('sha256:')}.sif"
    assert f"image {built} is being converted" in caplog.text
    first = modified(path)
    assert await local_sif(config) == str(path)
    assert modified(path) == first
    assert made(cache) == [path.name]
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups") if os.geteuid() == 0 else ()
    command = [*become, "apptainer", "--silent", "exec", str(path), "/bin/busybox", "echo", "inside"]
    done = await anyio.run_process(command, check=False, cwd="/", env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == b"inside\n", done.stderr


@pytest.mark.docker
@pytest.mark.apptainer
def test_processes_that_want_the_same_image_at_once_convert_it_once(built: str, cache: Path) -> None:
    command = [sys.executable, "-c", CONVERTER, built]
    converters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [converter.communicate()[0].splitlines() for converter in converters]
    assert len({lines[-1] for lines in said}) == 1
    assert sum("is being converted" in line for lines in said for line in lines) == 1
    assert len(made(cache)) == 1


@pytest.mark.docker
@pytest.mark.apptainer
def test_what_a_killed_process_began_is_done_by_the_next(built: str, cache: Path) -> None:
    command = [sys.executable, "-c", CONVERTER, built]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + PATIENCE_S
    while not any(cache.glob("*.unfinished-*/*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    assert first.stdout is not None
    first.stdout.close()
    first.wait()
    assert not list(cache.glob("*.sif"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "is being converted" in done.stdout
    assert made(cache) == [Path(done.stdout.splitlines()[-1]).name]


@pytest.mark.docker
@pytest.mark.apptainer
@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user the owner of the file reads it")
async def test_a_folder_that_the_user_cannot_pass_is_said_before_anything_is_made(
    built: str, cache: Path, tmp_path: Path
) -> None:
    await anyio.Path(tmp_path).chmod(0o700)
    with pytest.raises(BackendUnavailableError, match=f"{tmp_path} is closed to others") as raised:
        await local_sif(NomadSingularityConfig(image=built, user=USER))
    assert "HERMES_CACHE=FOLDER" in str(raised.value.hint)
    assert made(cache) == []


@pytest.mark.docker
@pytest.mark.apptainer
async def test_what_cannot_be_converted_is_told(built: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="there is no user nobody-of-that-name"):
        await local_sif(NomadSingularityConfig(image=built, user="nobody-of-that-name"))
    with pytest.raises(BackendUnavailableError, match="no-such-program cannot be run here"):
        await local_sif(NomadSingularityConfig(image=built, executable="no-such-program"))
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\ntouch $4\necho 'FATAL:   not today' >&2\nexit 255\n")
    engine.chmod(0o755)
    with pytest.raises(BackendUnavailableError, match=f"{built} cannot be converted: not today"):
        await local_sif(NomadSingularityConfig(image=built, executable=str(engine)))
    assert made(cache) == []

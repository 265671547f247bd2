"""Images: those of tasks, those that are built, and those that cannot be had."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from docker import errors

from hermes_core import Hermes
from hermes_core.exceptions import BackendUnavailableError, ConfigError, SandboxLostError
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hermes_backend_docker import DockerBackend

pytestmark = [pytest.mark.anyio, pytest.mark.docker]

PATIENCE_S = 30.0
BUSYBOX = """\
FROM {base} AS base
FROM scratch
LABEL {label}
COPY --from=base /bin/busybox /bin/busybox
RUN ["/bin/busybox", "mkdir", "-p", "/tmp", "/testbed"]
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY code.txt /testbed/
ENV PATH=/opt/tool/bin:/bin COLOUR=blue HOME=/root LD_PRELOAD=/nothing.so
ENTRYPOINT ["/bin/false"]
HEALTHCHECK CMD /bin/false
"""


@pytest.fixture
def folder(docker_base: str, client: Any, tmp_path: Path) -> Iterator[Path]:
    """A task's folder with a Dockerfile; images of it are removed afterwards."""
    folder = tmp_path / "task"
    folder.mkdir()
    label = f"hermes.test={tmp_path}"
    (folder / "code.txt").write_text(f"code {tmp_path}\n")
    (folder / "Dockerfile").write_text(BUSYBOX.format(base=docker_base, label=label))
    yield folder
    # With the layers of builds that failed, which have no name; those of one that was given up are in use for a while.
    deadline = time.monotonic() + PATIENCE_S
    while left := client.images(filters={"label": label}):
        assert time.monotonic() < deadline, f"images are left: {left}"
        for image in left:
            with suppress(errors.APIError):
                client.remove_image(image["Id"], force=True)
        time.sleep(0.05)


async def test_an_image_of_nothing_but_busybox(make: Callable[..., DockerBackend], folder: Path) -> None:
    async with Hermes(backend=make()) as hermes, hermes.lease(image=f"dockerfile:{folder}") as slot:
        assert slot.isolation == "namespaces"
        assert (await slot.exec("cat /testbed/code.txt")).stdout == (folder / "code.txt").read_text()
        done = await slot.exec("echo $COLOUR $PATH $HOME $LD_PRELOAD; ls /lib /usr")
        assert done.stdout == "blue /opt/tool/bin:/bin /home/agent /nothing.so\n"
        await slot.write_file("file", b"content")
        assert (await slot.exec("cat file; wc -c < file")).stdout == "content7\n"


async def test_folders_of_an_image_that_slots_may_change(
    make: Callable[..., DockerBackend], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make(writable=["/testbed", "/not-there"], slots_per_sandbox=2)
    image = f"dockerfile:{folder}"
    async with Hermes(backend=backend) as hermes, hermes.lease(image=image) as one, hermes.lease(image=image) as two:
        assert (
            await one.exec("echo mine > /testbed/code.txt; rm -f /testbed/none; ls /testbed")
        ).stdout == "code.txt\n"
        assert (await one.read_file("/testbed/code.txt")) == b"mine\n"
        assert (await two.exec("cat /testbed/code.txt")).stdout == (folder / "code.txt").read_text()
        graded = await one.grade()
        assert (await graded.exec("cat /testbed/code.txt")).stdout == "mine\n"
    said = [record.getMessage() for record in caplog.records if "/not-there" in record.getMessage()]
    assert said == [f"slots have no copy of /not-there where the image has no such folder, as in {image}"]


@pytest.mark.parametrize("wrong", ["/not-there", "/etc"])
async def test_a_folder_that_slots_cannot_change_is_refused(make: Callable[..., DockerBackend], wrong: str) -> None:
    async with Hermes(backend=make(writable=[wrong])) as hermes:
        with pytest.raises(BackendUnavailableError, match=f"^{wrong}: ") as raised:
            await hermes.acquire()
    assert wrong == "/etc" or "`writable`" in str(raised.value.hint)


async def test_an_image_is_built_once_for_the_same_content(
    make: Callable[..., DockerBackend], folder: Path, client: Any, owner: str
) -> None:
    name = f"dockerfile:{folder / 'Dockerfile'}"
    (folder / ".dockerignore").write_text("notes\n")
    async with make() as backend:
        async with anyio.create_task_group() as tasks:
            for index in range(3):
                tasks.start_soon(backend.start, SandboxSpec(slots=1, image=name), owner, f"{owner}-{index}")
        ids = {client.inspect_container(sandbox.title)["Image"] for sandbox in backend.sandboxes}
        assert len(ids) == 1
    (folder / "notes").write_text("nobody sees them")
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1, image=name), owner, f"{owner}-0")
        assert {client.inspect_container(sandbox.title)["Image"] for sandbox in backend.sandboxes} == ids
    (folder / "code.txt").write_text("other code\n")
    async with make() as backend:
        await backend.start(SandboxSpec(slots=1, image=name), owner, f"{owner}-0")
        assert {client.inspect_container(sandbox.title)["Image"] for sandbox in backend.sandboxes} != ids


async def test_images_may_be_had_ready_beforehand(
    make: Callable[..., DockerBackend], folder: Path, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"dockerfile:{folder}", "hermes-no-such-image:1", f"dockerfile:{folder.parent}"]
    async with make(prebuild=names, pull="never"):
        label = f"hermes.test={folder.parent}"
        assert len(client.images(filters={"label": label, "dangling": False})) == 1
    said = [record.getMessage() for record in caplog.records if "cannot be had" in record.getMessage()]
    assert sorted(line.split()[1] for line in said) == sorted(names[1:])


async def test_trajectories_of_a_task_share_a_container_or_have_their_own(
    make: Callable[..., DockerBackend], docker_base: str
) -> None:
    for image_per_task, containers in ((False, 1), (True, 2)):
        backend = make(image_per_task=image_per_task, slots_per_sandbox=2)
        async with (
            Hermes(backend=backend) as hermes,
            hermes.lease(image=docker_base) as one,
            hermes.lease(image=docker_base) as two,
        ):
            assert (await one.exec("echo one")).stdout == "one\n"
            assert (await two.exec("echo two")).stdout == "two\n"
            assert len(backend.sandboxes) == containers


async def test_a_build_that_fails_leaves_its_log(
    make: Callable[..., DockerBackend], folder: Path, client: Any, owner: str
) -> None:
    recipe = folder / "Dockerfile"
    recipe.write_text(recipe.read_text() + 'RUN ["/bin/busybox", "sh", "-c", "echo what went wrong; exit 3"]\n')
    async with make() as backend:
        for _ in range(2):
            with pytest.raises(SandboxLostError, match=r"cannot be built: .*non-zero code: 3") as raised:
                await backend.start(SandboxSpec(slots=1, image=f"dockerfile:{folder}"), owner, f"{owner}-0")
        log = str(raised.value.hint).removeprefix("its log: ")
        assert "what went wrong" in await anyio.Path(log).read_text()
        await anyio.Path(log).unlink()
        assert not await backend.list(owner)
    with anyio.fail_after(PATIENCE_S):
        while any("what went wrong" in one["Command"] for one in client.containers(all=True)):  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_a_cancelled_build_is_given_up(make: Callable[..., DockerBackend], folder: Path, owner: str) -> None:
    recipe = folder / "Dockerfile"
    recipe.write_text(recipe.read_text() + 'RUN ["/bin/busybox", "sleep", "2"]\n')
    async with make() as backend:
        with anyio.move_on_after(1) as scope:
            await backend.start(SandboxSpec(slots=1, image=f"dockerfile:{folder}"), owner, f"{owner}-0")
        assert scope.cancelled_caught
        assert not await backend.list(owner)


async def test_a_folder_without_a_dockerfile(make: Callable[..., DockerBackend], tmp_path: Path, owner: str) -> None:
    async with make() as backend:
        with pytest.raises(ConfigError, match="no Dockerfile"):
            await backend.start(SandboxSpec(slots=1, image=f"dockerfile:{tmp_path}"), owner, f"{owner}-0")


async def test_an_image_that_is_not_there(make: Callable[..., DockerBackend], owner: str) -> None:
    with pytest.raises(BackendUnavailableError, match="no image hermes-nothing:x") as raised:
        async with make(image="hermes-nothing:x", pull="never"):
            pass
    assert "docker pull" in str(raised.value.hint)
    with pytest.raises(BackendUnavailableError, match="no image localhost:1/x:y, and it cannot be pulled"):
        async with make(image="localhost:1/x:y"):
            pass
    async with make(pull="never") as backend:
        # A task's image is that task's trouble.
        with pytest.raises(SandboxLostError, match="no image hermes-nothing:x"):
            await backend.start(SandboxSpec(slots=1, image="hermes-nothing:x"), owner, f"{owner}-0")


async def test_the_reference_image_has_what_agents_need(
    make: Callable[..., DockerBackend], reference: str, docker_base: str
) -> None:
    backend = make(image=None, base_image=docker_base)
    async with Hermes(backend=backend) as hermes, hermes.lease() as slot:
        for program in ("git", "curl", "wget", "jq", "unshare", "ps"):
            assert (await slot.exec(f"{program} --version")).exit_code == 0, program
        # With pip in it a virtual environment is a thousand files, which some disks take minutes for.
        made = await slot.exec("python3 -m venv --without-pip own && own/bin/python -m pip --version", timeout_s=300)
        assert "No module named pip" in made.stderr, made
        assert (await slot.exec("python3 -m pip --version && python3 -c 'import ensurepip'")).exit_code == 0

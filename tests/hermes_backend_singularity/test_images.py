"""Images are made ready once, whoever asks for them, and whoever is killed meanwhile."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path

import anyio
import pytest
from pydantic import ValidationError
from tests.hermes_backend_singularity.containers import eventually

from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core.exceptions import BackendUnavailableError, ConfigError
from hermes_core.execution import DefaultBatchExecutor, Slot
from hermes_core.sandbox import SandboxSpec
from hermes_core.slots import DefaultSlotPool, LeaseRequest, PoolConfig

pytestmark = [pytest.mark.anyio, pytest.mark.apptainer]

APPLETS = ("cat", "echo", "env", "grep", "id", "ls", "sh", "sleep", "test", "touch", "true")
CODE = b"print('hello')\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image as `docker save` writes it, of nothing but a static busybox: no C library, no Python, no bubblewrap."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in ("bin", "dev", "etc", "proc", "run", "sys", "testbed", "tmp", "var", "var/tmp"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(member)
        tar.add(busybox, "bin/busybox")
        member = tarfile.TarInfo("testbed/code")
        member.size = len(CODE)
        tar.addfile(member, io.BytesIO(CODE))
        for applet in APPLETS:
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(member)
    digest = sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {"Env": ["COLOUR=blue", "PATH=/opt/tool:/bin", "HOME=/nowhere"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["tiny:latest"], "Layers": ["layer.tar"]}]
    path = tmp_path_factory.mktemp("archive") / "tiny.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("layer.tar", layer.getvalue()),
            ("config.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def tiny(archive: Path, tmp_path: Path, scratch: Path) -> SingularityConfig:
    return SingularityConfig(image=f"docker-archive:{archive}", scratch_dir=scratch, cache_dir=tmp_path / "cache")


def made(folder: Path | None) -> list[str]:
    """The images below a folder, and whatever else is left of making them."""
    assert folder is not None
    return sorted(
        path.name
        for pattern in ("hermes-singularity-*/images/*", "hermes-singularity-*/*.sif*")
        for path in folder.glob(pattern)
        if not path.name.endswith(".lock")
    )


async def test_a_source_is_converted_once_and_needs_nothing_of_hermes_in_it(
    tiny: SingularityConfig, archive: Path
) -> None:
    async with (
        SingularityBackend(tiny) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=2)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        slot = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
        assert slot.isolation == "namespaces"
        assert (await slot.exec("ls /bin; ls /lib /usr; id -u")).stdout.split() == ["busybox", *APPLETS, "1000"]
    (converted,), (unpacked,) = made(tiny.cache_dir), made(tiny.scratch_dir)
    assert converted.endswith(".sif")
    path = next((tiny.cache_dir or Path()).glob(f"*/{converted}"))
    before = path.stat()
    async with SingularityBackend(tiny) as backend:
        await backend.start(SandboxSpec(slots=1), "owner", "one")
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert (made(tiny.cache_dir), made(tiny.scratch_dir)) == ([converted], [unpacked])
    os.utime(archive)
    async with SingularityBackend(tiny):
        assert len(made(tiny.cache_dir)) == 2, "another archive, by its time"


async def test_variables_of_the_image_are_those_of_its_slots(tiny: SingularityConfig) -> None:
    async with (
        SingularityBackend(tiny) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        slot = Slot(await pool.lease(LeaseRequest(env={"SHAPE": "round"})), pool, executor, {})
        done = await slot.exec("echo $COLOUR $SHAPE $PATH $HOME $LANG; env | grep -c -i -e apptainer -e singularity")
        colour, shape, path, home, language, others = done.stdout.split()
        assert (colour, shape, home, language, others) == ("blue", "round", slot.home, "C.UTF-8", "0")
        assert path.startswith("/opt/tool:/bin:"), "the engine puts the usual folders after them"


async def test_slots_may_change_copies_of_folders_of_the_image(tiny: SingularityConfig) -> None:
    config = tiny.model_copy(update={"writable": ("/testbed",)})
    async with (
        SingularityBackend(config) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        for _ in range(2):
            slot = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
            assert await slot.read_file("/testbed/code") == CODE
            assert (await slot.exec("echo changed > /testbed/code; cat /testbed/code")).stdout == "changed\n"
            await slot.release()


async def test_folders_that_an_image_does_not_have_are_told(
    tiny: SingularityConfig, root_folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny.model_copy(update={"writable": ("/testbed",), "image": root_folder})
    async with SingularityBackend(config) as backend:
        with pytest.raises(BackendUnavailableError, match=r"^/testbed: no such folder") as raised:
            await backend.start(SandboxSpec(slots=1), "owner", "one")
        assert "`writable`" in str(raised.value.hint)
        for name in ("two", "three"):
            await backend.start(SandboxSpec(slots=1, image=root_folder), "owner", name)
    assert sum("no copy of /testbed" in record.getMessage() for record in caplog.records) == 1


async def test_an_image_can_be_used_as_it_is(tiny: SingularityConfig) -> None:
    config = tiny.model_copy(update={"unpack": False})
    async with SingularityBackend(config) as backend:
        await backend.start(SandboxSpec(slots=1), "owner", "one")
    assert made(config.scratch_dir) == []
    assert len(made(config.cache_dir)) == 1


async def test_a_task_may_bring_an_image_of_its_own(tiny: SingularityConfig, root_folder: str) -> None:
    async with (
        SingularityBackend(tiny) as backend,
        DefaultSlotPool(backend, PoolConfig(slots_per_sandbox=1, max_sandboxes=2)) as pool,
        DefaultBatchExecutor() as executor,
    ):
        own = Slot(await pool.lease(LeaseRequest(image=root_folder)), pool, executor, {})
        usual = Slot(await pool.lease(LeaseRequest()), pool, executor, {})
        assert "Debian" in (await own.exec("cat /etc/os-release")).stdout
        assert (await usual.exec("cat /etc/os-release")).exit_code != 0


WORKER = """
import anyio, logging, sys
from hermes_backend_singularity import SingularityBackend, SingularityConfig
from hermes_core.sandbox import SandboxSpec
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

async def main():
    config = SingularityConfig(image=sys.argv[1], scratch_dir=sys.argv[2], cache_dir=sys.argv[3])
    async with SingularityBackend(config) as backend:
        await backend.start(SandboxSpec(slots=1), "owner" + sys.argv[4], "one")
    print("fine")

anyio.run(main)
"""


def start_worker(image: str, config: SingularityConfig, number: int) -> subprocess.Popen[str]:
    arguments = (image, str(config.scratch_dir), str(config.cache_dir), str(number))
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)


async def test_parallel_workers_of_a_machine_share_the_work(tiny: SingularityConfig) -> None:
    assert tiny.image is not None
    workers = [start_worker(tiny.image, tiny, number) for number in range(4)]
    said = [await anyio.to_thread.run_sync(worker.communicate) for worker in workers]
    lines = [line for out, _ in said for line in out.splitlines()]
    assert lines.count("fine") == 4
    assert sum("is being made from" in line for line in lines) == 2, "once converted, once unpacked"
    assert (len(made(tiny.cache_dir)), len(made(tiny.scratch_dir))) == (1, 1)


async def test_what_a_killed_worker_began_is_done_by_another(image: str, tiny: SingularityConfig) -> None:
    first = start_worker(image, tiny, 1)
    await eventually(lambda: any(".partial-" in name for name in made(tiny.scratch_dir)))
    first.send_signal(signal.SIGKILL)
    assert first.stdout is not None
    first.stdout.close()
    first.wait()
    second = start_worker(image, tiny, 2)
    out, _ = await anyio.to_thread.run_sync(second.communicate)
    assert out.endswith("fine\n")
    (name,) = made(tiny.scratch_dir)
    assert name.startswith("base-")


async def test_giving_up_while_an_image_is_made_leaves_nothing(image: str, tiny: SingularityConfig) -> None:
    config = tiny.model_copy(update={"image": image})
    async with anyio.create_task_group() as tasks:

        async def enter() -> None:
            async with SingularityBackend(config):
                raise AssertionError("it was not given up")

        tasks.start_soon(enter)
        await eventually(lambda: any(".partial-" in name for name in made(config.scratch_dir)))
        tasks.cancel_scope.cancel()
    assert made(config.scratch_dir) == []


async def test_another_file_is_another_image(archive: Path, tiny: SingularityConfig, tmp_path: Path) -> None:
    path = tmp_path / "own.sif"
    subprocess.run(["apptainer", "--silent", "build", str(path), f"docker-archive:{archive}"], check=True)  # noqa: ASYNC221
    config = tiny.model_copy(update={"image": str(path)})
    async with SingularityBackend(config):
        (first,) = made(config.scratch_dir)
        os.utime(path, (1, 1))
        async with SingularityBackend(config):
            assert len(made(config.scratch_dir)) == 2
            assert first in made(config.scratch_dir)


async def test_an_old_image_is_unpacked_anew_unless_it_is_in_use(tiny: SingularityConfig) -> None:
    async with SingularityBackend(tiny):
        (name,) = made(tiny.scratch_dir)
        (folder,) = (tiny.scratch_dir or Path()).glob(f"*/images/{name}")
        inode = folder.stat().st_ino
        stamp = folder.with_name(f"{name}.lock")
        stamp.write_text("1.0")
        async with SingularityBackend(tiny):
            assert folder.stat().st_ino == inode, "it was changed while it was in use"
    marker = folder / "etc/cleaned"
    marker.touch()
    async with SingularityBackend(tiny):
        assert not marker.exists()


async def test_what_nobody_uses_any_more_is_removed(tiny: SingularityConfig, root_folder: str) -> None:
    async with SingularityBackend(tiny):
        pass
    (name,) = made(tiny.scratch_dir)
    (lock,) = (tiny.scratch_dir or Path()).glob(f"*/images/{name}.lock")
    left = lock.with_name(f"{name}.partial-0123.tmp")
    left.mkdir()
    failed = lock.with_name("failed-0123456789abcdef.lock")
    failed.touch()
    other = tiny.model_copy(update={"image": root_folder})
    async with SingularityBackend(other):
        assert made(tiny.scratch_dir) == [name]
        assert not failed.exists()
    lock.write_text("1.0")
    async with SingularityBackend(other):
        assert made(tiny.scratch_dir) == []
        assert not lock.exists()


async def test_what_is_no_image_is_said_in_one_line(scratch: Path, tmp_path: Path) -> None:
    text = tmp_path / "own.def"
    text.write_text("Bootstrap: docker")
    cases = ((tmp_path / "none.sif", "no such file", "docker://"), (text, "is no image", "apptainer build"))
    for image, said, hint in cases:
        with pytest.raises(ConfigError, match=said) as raised:
            await SingularityBackend(SingularityConfig(image=str(image), scratch_dir=scratch)).__aenter__()
        assert hint in (raised.value.hint or "")
    assert made(scratch) == []


async def test_where_tasks_bring_images_one_without_is_told_what_to_give(scratch: Path) -> None:
    async with SingularityBackend(SingularityConfig(image="task", scratch_dir=scratch)) as backend:
        with pytest.raises(BackendUnavailableError, match="brings no image"):
            await backend.start(SandboxSpec(slots=1), "owner", "one")


async def test_without_the_program_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(BackendUnavailableError, match="neither apptainer nor singularity is on PATH") as raised:
        await SingularityBackend().__aenter__()
    assert "module load" in (raised.value.hint or "")
    with pytest.raises(BackendUnavailableError, match="/no/apptainer cannot be run"):
        await SingularityBackend(SingularityConfig(executable="/no/apptainer")).__aenter__()


async def test_a_folder_that_others_can_write_is_refused(scratch: Path) -> None:
    config = SingularityConfig(image="task", scratch_dir=scratch)
    (scratch / f"hermes-singularity-{os.geteuid()}").mkdir()
    (scratch / f"hermes-singularity-{os.geteuid()}").chmod(0o777)
    for use in (
        SingularityBackend(config).__aenter__,
        SingularityBackend(config).list,
        SingularityBackend(config).cleanup,
    ):
        with pytest.raises(BackendUnavailableError, match="only this user can write") as raised:
            await use()
        assert raised.value.hint == "choose another: -B scratch_dir=FOLDER"


def test_folders_come_from_the_usual_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hermes_backend_singularity._places import cache_folder, scratch_folder

    names = ("SLURM_TMPDIR", "APPTAINER_TMPDIR", "SINGULARITY_TMPDIR", "TMPDIR")
    caches = ("APPTAINER_CACHEDIR", "SINGULARITY_CACHEDIR", "HERMES_CACHE", "XDG_CACHE_HOME")
    config = SingularityConfig()
    for variables, folder, default in (
        (names, scratch_folder, Path("/tmp")),
        (caches, cache_folder, Path.home() / ".cache"),
    ):
        for name in variables:
            monkeypatch.delenv(name, raising=False)
        assert folder(config).parent == default.resolve()
        for name in reversed(variables):
            monkeypatch.setenv(name, str(tmp_path / name))
            assert folder(config).parent == tmp_path / name
    assert scratch_folder(SingularityConfig(scratch_dir=tmp_path)).parent == tmp_path
    assert cache_folder(SingularityConfig(cache_dir=tmp_path)).parent == tmp_path


def test_settings_are_checked() -> None:
    assert SingularityConfig().slots_per_sandbox == 16
    for wrong in (
        {"slots_per_sandbox": 0},
        {"slot_per_sandbox": 4},
        {"binds": ["relative"]},
        {"binds": ["/a:b"]},
        {"binds": ["/a:/b:rw"]},
        {"binds": ["/a,/b:/c"]},
        {"binds": ["/a:/tmp/b"]},
        {"binds": ["/run"]},
    ):
        with pytest.raises(ValidationError):
            SingularityConfig.model_validate(wrong)
    assert SingularityBackend.name == "singularity"

"""What is put on the machine, and what it has to have."""

from __future__ import annotations

import os
import pwd
import shutil
import uuid
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import anyio
import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from tests.conftest import cannot_run

from hermes_backend_ssh import SshBackend, SshConfig, _scripts
from hermes_core import Hermes
from hermes_core.cli._main import hermes
from hermes_core.sandbox import SandboxSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hermes_backend_ssh.conftest import Server

pytestmark = [pytest.mark.anyio, pytest.mark.ssh]


@pytest.fixture
def fresh(there: Path) -> Iterator[Path]:
    """A folder that does not exist there yet, with an odd name."""
    folder = there / 'somebody\'s "own" $(folder) ~'
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def test_the_runtime_folder_is_put_there_once(make: Callable[..., SshBackend], fresh: Path, owner: str) -> None:
    async def use(number: int) -> None:
        async with make(remote_dir=str(fresh)) as backend:
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-{number}")

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(use, number)
    [runtime] = os.listdir(fresh / "runtimes")
    before = os.stat(fresh / "runtimes" / runtime)
    await use(3)
    assert os.listdir(fresh / "runtimes") == [runtime]
    assert os.stat(fresh / "runtimes" / runtime).st_ino == before.st_ino
    assert os.listdir(fresh / "sandboxes") == []


async def test_runtime_folders_that_nobody_has_used_for_long_are_removed(
    make: Callable[..., SshBackend], fresh: Path, ordinary: str
) -> None:
    async with make(remote_dir=str(fresh)):
        [runtime] = os.listdir(fresh / "runtimes")
    for name in ("of-last-year", "of-last-year-and-in-use", "of-last-week"):
        await anyio.run_process(["cp", "-a", str(fresh / "runtimes" / runtime), str(fresh / "runtimes" / name)])
        if "year" in name:
            os.utime(fresh / "runtimes" / name / "start", (0, 0))
    used = str(fresh / "runtimes" / "of-last-year-and-in-use" / "start")
    as_user = ("setpriv", f"--reuid={ordinary}", f"--regid={ordinary}", "--init-groups") if os.geteuid() == 0 else ()
    process = await anyio.open_process(
        [*as_user, "sh", used, "-c", "print('here', flush=True); input()"], stdin=PIPE, stdout=PIPE
    )
    async with process:
        assert process.stdout is not None
        assert await process.stdout.receive() == b"here\n"
        async with make(remote_dir=str(fresh)):
            assert set(os.listdir(fresh / "runtimes")) == {runtime, "of-last-year-and-in-use", "of-last-week"}
        process.kill()
    assert await make(remote_dir=str(fresh)).cleanup() == []
    assert set(os.listdir(fresh / "runtimes")) == {runtime, "of-last-week"}


async def test_looking_puts_nothing_there(make: Callable[..., SshBackend], fresh: Path) -> None:
    backend = make(remote_dir=str(fresh))
    assert await backend.list() == []
    assert await backend.cleanup() == []
    assert not is_there(fresh)


def is_there(path: Path) -> bool:
    return path.exists()


@pytest.mark.parametrize("named", [False, True])
async def test_where_things_are_put(
    named: bool, make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str, there: Path
) -> None:
    remote_dir = f"~/.hermes test {uuid.uuid4().hex[:8]}" if named else None
    folder = Path(pwd.getpwnam(ordinary).pw_dir, remote_dir[2:]) if remote_dir else there / "cache/hermes-ssh"
    assert not is_there(folder)
    settings = serve(f"SetEnv XDG_CACHE_HOME={there}/cache").settings(ordinary)
    try:
        async with make(**settings, remote_dir=remote_dir):
            assert set(os.listdir(folder)) == {"runtimes", "sandboxes"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_an_upload_that_breaks_off_leaves_nothing(make: Callable[..., SshBackend], fresh: Path) -> None:
    async with make(remote_dir=str(fresh)) as backend:
        assert backend.connection is not None
        before = os.listdir(fresh / "runtimes")
        done = await backend.connection.run(_scripts.receive(str(fresh), "0123", "x"), b"not an archive")
        assert done.status != 0
        # Between two files, where tar sees nothing wrong.
        done = await backend.connection.run(_scripts.receive(str(fresh), "0123", "y"), b"\0" * 10240)
        assert done.status != 0
        assert os.listdir(fresh / "runtimes") == before


async def test_a_machine_with_nothing_but_busybox(
    make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str, fresh: Path, tmp_path: Path
) -> None:
    settings = serve(f"SetEnv PATH={busybox_programs(tmp_path)}").settings(ordinary)
    async with Hermes(backend=make(**settings, remote_dir=str(fresh))) as hermes, hermes.lease() as slot:
        assert slot.isolation == "namespaces"
        assert (await slot.exec("echo done")).stdout == "done\n"


async def test_a_server_that_grants_a_single_session(
    make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str
) -> None:
    settings = serve("MaxSessions 1").settings(ordinary)
    async with Hermes(backend=make(**settings)) as hermes, hermes.lease() as slot:
        assert (await slot.exec("echo done")).stdout == "done\n"


def busybox_programs(folder: Path) -> Path:
    busybox = shutil.which("busybox")
    if busybox is None:
        cannot_run("busybox", "there is no busybox (apt-get install busybox-static)")
    programs = folder / "bin"
    programs.mkdir()
    for above in (folder, *list(folder.parents)[:-2]):
        above.chmod(0o755)
    for name in "cat chmod dirname env id ls mkdir mv printf pwd rm sh tar uname".split():
        (programs / name).symlink_to(busybox)
    return programs


@pytest.mark.skipif(os.geteuid() != 0, reason="logs in as root, which takes root")
async def test_root_has_slots_with_users_of_their_own(
    server: Server, place: Callable[[str], Path], owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    for isolation in ("auto", "user"):
        settings = {**server.settings("root"), "remote_dir": str(place("root")), "isolation": isolation}
        async with Hermes(backend=SshBackend(SshConfig.model_validate(settings))) as hermes, hermes.lease() as slot:
            assert slot.isolation == ("namespaces" if isolation == "auto" else "user")
            assert (await slot.exec("id -u")).stdout.strip() != "0"
    assert "isolation" not in caplog.text


def test_a_run_by_the_command_line(make: Callable[..., SshBackend], tmp_path: Path) -> None:
    config = make().config.model_dump(mode="json", exclude_none=True)
    settings = ("host", "port", "user", "key", "known_hosts", "remote_dir")
    pairs = [argument for name in settings for argument in ("-B", f"{name}={config[name]}")]
    command = ["run", "arithmetic", "--backend", "ssh", *pairs, "--model", "oracle", "--tasks", "16"]
    done = CliRunner().invoke(hermes, [*command, "--group-size", "4", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert '"mean_reward": 1.0' in (tmp_path / "out/statistics.json").read_text()
    assert (tmp_path / "out/trajectories.jsonl").read_text().count("\n") == 64


@pytest.mark.parametrize(
    "values",
    [{"host": "-oProxyCommand=x"}, {"host": "a b"}, {"user": ""}, {"port": 0}, {"remote_dir": "here"}, {"image": "x"}],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SshConfig.model_validate(values)

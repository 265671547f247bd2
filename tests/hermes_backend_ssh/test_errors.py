"""What is said when the machine cannot be reached, or cannot be used."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import anyio
import pytest

from hermes_backend_ssh import SshBackend, SshConfig
from hermes_core.exceptions import BackendUnavailableError, ConfigError, HermesError
from hermes_core.sandbox import SandboxSpec
from hermes_sandboxd import find_bubblewrap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hermes_backend_ssh.conftest import Server

pytestmark = [pytest.mark.anyio, pytest.mark.ssh]

NEEDED = "bash cat chmod dirname env id ls mkdir mv printf pwd rm sh tar uname".split()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def refused(backend: SshBackend) -> HermesError:
    """Return the error of entering, which leaves nothing behind."""
    with pytest.raises(HermesError) as raised:
        async with backend:
            pass
    assert backend.connection is None
    return raised.value


@pytest.fixture
def no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where a .env file might be
    monkeypatch.chdir(tmp_path)
    for name in ("HOST", "USER", "PORT", "KEY"):
        monkeypatch.delenv(f"TERMINAL_SSH_{name}", raising=False)


@pytest.mark.usefixtures("no_variables")
async def test_no_machine() -> None:
    for attempt in (SshBackend().list, SshBackend().cleanup, SshBackend().__aenter__):
        with pytest.raises(ConfigError, match="needs a machine") as raised:
            await attempt()
        assert "TERMINAL_SSH_HOST" in str(raised.value.hint)


@pytest.mark.usefixtures("no_variables")
async def test_variables_count_where_the_configuration_is_silent(
    server: Server, ordinary: str, there: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    settings = server.settings(ordinary)
    for name in ("host", "user", "port", "key"):
        monkeypatch.setenv(f"TERMINAL_SSH_{name.upper()}", str(settings[name]))
    silent = {"known_hosts": settings["known_hosts"], "remote_dir": str(there)}
    async with SshBackend(SshConfig.model_validate(silent)) as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
    for name, value in (("host", "-oProxyCommand=x"), ("port", "ssh"), ("key", "/nonexistent")):
        monkeypatch.setenv(f"TERMINAL_SSH_{name.upper()}", value)
        with pytest.raises(ConfigError):
            await SshBackend(SshConfig.model_validate(silent)).list()
        monkeypatch.setenv(f"TERMINAL_SSH_{name.upper()}", str(settings[name]))
        async with SshBackend(SshConfig.model_validate({**silent, name: settings[name]})):
            pass


@pytest.mark.usefixtures("no_variables")
async def test_files_below_the_home_folder(
    make: Callable[..., SshBackend], server: Server, there: Path, tmp_path: Path
) -> None:
    for name in ("key", "known_hosts"):
        shutil.copy(server.folder / name, tmp_path / name)
    async with make(key="~/key", known_hosts="~/known_hosts"):
        pass


async def test_no_client(make: Callable[..., SshBackend], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    error = await refused(make())
    assert "no ssh client" in str(error)
    assert "openssh-client" in str(error.hint)


async def test_nobody_listens(make: Callable[..., SshBackend]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await refused(make(port=free.getsockname()[1]))
    assert isinstance(error, BackendUnavailableError)
    assert "refuses the connection" in str(error)
    assert "-B port" in str(error.hint)


async def test_no_such_host(make: Callable[..., SshBackend]) -> None:
    error = await refused(make(host="nowhere.invalid"))
    assert "nowhere.invalid" in str(error)
    assert "cannot be reached" in str(error)


async def test_a_machine_that_says_nothing(make: Callable[..., SshBackend]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        backend = make(port=silent.getsockname()[1], connect_timeout_s=1)
        error = await refused(backend)
        assert "cannot be reached" in str(error)
        with anyio.fail_after(30), pytest.raises(HermesError, match="cannot be reached"):
            await backend.list()


async def test_a_key_that_is_not_authorized(make: Callable[..., SshBackend], tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    error = await refused(make(key=tmp_path / "other"))
    assert "does not let this user in" in str(error)
    assert "ermission denied" in str(error)
    assert str(tmp_path / "other") in str(error.hint)


async def test_a_key_that_others_can_read(make: Callable[..., SshBackend], server: Server, tmp_path: Path) -> None:
    shutil.copy(server.folder / "key", tmp_path / "key")
    (tmp_path / "key").chmod(0o644)
    error = await refused(make(key=tmp_path / "key"))
    assert error.hint == f"chmod 600 {tmp_path / 'key'}"


async def test_a_host_key_that_is_not_known(make: Callable[..., SshBackend], tmp_path: Path) -> None:
    backend = make(known_hosts=tmp_path / "known hosts")
    error = await refused(backend)
    assert "host key" in str(error)
    assert "not known" in str(error)
    assert not (tmp_path / "known hosts").exists()
    with pytest.raises(BackendUnavailableError, match="not known"):
        await backend.list()
    accept(error)
    async with backend:
        pass


async def test_a_host_key_that_has_changed(make: Callable[..., SshBackend], server: Server, tmp_path: Path) -> None:
    known = tmp_path / "known"
    other = (tmp_path / "other").with_suffix(".pub")
    make_key(tmp_path / "other")
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(other.read_text().split()[:2])}\n")
    backend = make(known_hosts=known)
    error = await refused(backend)
    assert "not the one that is known" in str(error)
    before = known.read_text()
    forget, learn = str(error.hint).partition(": ")[2].split(" && ")
    assert known.read_text() == before
    do(forget)
    accept(BackendUnavailableError("", hint=f": {learn}"))
    async with backend:
        pass


def make_key(path: Path) -> None:
    do(shlex.join(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)]))


def do(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, stdin=subprocess.DEVNULL, capture_output=True)


def accept(error: HermesError) -> None:
    """Do what a hint says, and say yes."""
    command = str(error.hint).partition(": ")[2]
    assert "StrictHostKeyChecking=ask" in command
    do(command.replace("StrictHostKeyChecking=ask", "StrictHostKeyChecking=accept-new"))


async def test_a_shell_that_greets(
    make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str
) -> None:
    settings = serve('ForceCommand echo Welcome; eval "$SSH_ORIGINAL_COMMAND"').settings(ordinary)
    error = await refused(make(**settings))
    assert "'Welcome'" in str(error)
    assert ".bashrc" in str(error.hint)


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with all the programs that are needed there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for above in (tmp_path, *list(tmp_path.parents)[:-2]):
        above.chmod(0o755)
    for name in NEEDED:
        if (path := shutil.which(name)) is not None:
            (folder / name).symlink_to(path)
    return folder


async def test_no_tar(
    make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str, programs: Path
) -> None:
    settings = serve(f"SetEnv PATH={programs}").settings(ordinary)
    async with make(**settings):
        pass
    (programs / "tar").unlink()
    error = await refused(make(**settings))
    assert "there is no tar" in str(error)


async def test_another_kind_of_machine(
    make: Callable[..., SshBackend], serve: Callable[..., Server], ordinary: str, programs: Path
) -> None:
    (programs / "uname").unlink()
    (programs / "uname").write_text('#!/bin/sh\n[ "$1" = -s ] && echo Linux || echo riscv64\n')
    (programs / "uname").chmod(0o755)
    error = await refused(make(**serve(f"SetEnv PATH={programs}").settings(ordinary)))
    assert "riscv64" in str(error)
    assert "same kind" in str(error.hint)


@pytest.fixture
def full(ordinary: str, server: Server) -> Iterator[Path]:
    """A folder there on a file system with hardly any space."""
    if os.geteuid() != 0:
        pytest.skip("cannot run: mounting a file system takes root")
    folder = server.folder / "full"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "none", folder], check=True)
    try:
        shutil.chown(folder, ordinary)
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


async def test_no_space(make: Callable[..., SshBackend], full: Path) -> None:
    error = await refused(make(remote_dir=str(full / "hermes")))
    assert "no space is left on" in str(error)
    assert "remote_dir" in str(error.hint)
    assert os.listdir(full / "hermes/runtimes") == []


async def test_a_folder_that_others_can_write(make: Callable[..., SshBackend], there: Path) -> None:
    folder = there / "open"
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    try:
        error = await refused(make(remote_dir=str(folder)))
        assert "is not a folder that only this user can write" in str(error)
    finally:
        shutil.rmtree(folder)


async def test_a_folder_that_cannot_be_made(make: Callable[..., SshBackend]) -> None:
    error = await refused(make(remote_dir="/proc/hermes"))
    assert "/proc/hermes" in str(error)


@pytest.fixture
def confined(serve: Callable[..., Server], ordinary: str) -> Server:
    """A machine whose kernel makes no user namespaces."""
    path = find_bubblewrap()
    assert path is not None
    wrapper = [path, "--unshare-user", "--disable-userns", "--dev-bind", "/", "/", "--die-with-parent", "--"]
    return serve(wrapper=wrapper, user=ordinary if os.geteuid() == 0 else None)


async def test_no_namespaces(
    make: Callable[..., SshBackend], confined: Server, ordinary: str, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = confined.settings(ordinary)
    for given, slots in (("auto", 2), ("namespaces", 1), ("auto", 1)):
        async with make(**settings, isolation=given) as backend:
            with pytest.raises(BackendUnavailableError, match="isolated slots cannot be had on") as raised:
                await backend.start(SandboxSpec(slots=slots), owner, f"{owner}-0")
            assert "user.max_user_namespaces" in f"{raised.value} {raised.value.hint}"
            assert given != "auto" or "isolation" in str(raised.value.hint)
            assert not await backend.list(owner)
    assert "no isolation" not in caplog.text
    async with make(**settings, isolation="none") as backend:
        await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
        assert "slots have no isolation" in caplog.text
    async with make(**settings, isolation="none", require_isolation="user") as backend:
        with pytest.raises(BackendUnavailableError, match="'user' is required"):
            await backend.start(SandboxSpec(slots=1), owner, f"{owner}-0")
